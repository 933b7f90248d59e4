import { randomFillSync } from 'node:crypto';
import { mkdtemp, open as openFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { nbdNeeds, runNbdTool, startNbdkit, startQemuNbd } from '../../peers/nbd.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
const capacityBytes = 1024 * 1024 * 1024;
const requestBytes = 256 * 1024;
const requests = 16;
const rounds = 5;
/** The machine may be busy with other tests, which disturb one side of a pair more than the other. */
const attempts = 5;
const shareMin = 0.8;

it.skipIf(needs !== null).for([
  ['qemu-nbd', (image: string) => startQemuNbd(['--read-only', '--format=raw', image])],
  ['nbdkit', (image: string) => startNbdkit(['--readonly', 'file', image])],
] as const)(
  `$0 is read at ${shareMin} of the speed of nbdcopy or more${needs === null ? '' : `: ${needs}`}`,
  async ([, start]) => {
    const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-speed-'));
    try {
      const image = join(folder, 'image');
      await makeImage(image);
      await using server = await start(image);
      await readWhole(server.uri);
      const shares: number[] = [];
      while (shares.length < attempts && (shares.at(-1) ?? 0) < shareMin) shares.push(await shareOfNbdcopy(server.uri));
      console.log(`share of nbdcopy's speed: ${shares.map((share) => share.toFixed(2)).join(', ')}`);
      expect(Math.max(...shares)).toBeGreaterThanOrEqual(shareMin);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
);

/** By turns, median of all rounds. */
async function shareOfNbdcopy(uri: string): Promise<number> {
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round += 1) {
    ours.push(await seconds(() => readWhole(uri)));
    theirs.push(await seconds(() => copyToNowhere(uri)));
  }
  return median(theirs) / median(ours);
}

async function readWhole(uri: string): Promise<void> {
  await using disk = await NbdDisk.open(parseNbdUri(uri), {}, never);
  let next = 0;
  const reader = async () => {
    const into = new Uint8Array(requestBytes);
    while (next < disk.capacityBytes) {
      const offset = next;
      next += requestBytes;
      await disk.read(offset, into, never);
    }
  };
  await Promise.all(Array.from({ length: requests }, reader));
}

function copyToNowhere(uri: string): Promise<string> {
  const pace = ['--connections=1', `--requests=${requests}`, `--request-size=${requestBytes}`];
  return runNbdTool('nbdcopy', ['--no-extents', ...pace, uri, 'null:']);
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** Without holes; written a moment ago, so it is in the page cache. */
async function makeImage(path: string): Promise<void> {
  const piece = randomFillSync(new Uint8Array(16 * 1024 * 1024));
  await using file = await openFile(path, 'w');
  for (let at = 0; at < capacityBytes; at += piece.length) await file.write(piece, 0, piece.length, at);
}
