/** Our reader against qemu-nbd and nbdcopy, at the same dynamic VHDX. */
import { randomFillSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readsOf } from '../../hypervisors/vhdx/chain-source.ts';
import { openChain } from '../../hypervisors/vhdx/image-chain.ts';
import { openLocalFile } from '../../hypervisors/vhdx/local-file.ts';
import { nbdNeeds, runNbdTool, startQemuNbd } from '../peers/nbd.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
/** All of it data: what is free is skipped by us, and sent by QEMU. */
const capacityBytes = 512 * 1024 * 1024;
const readBytes = 2 * 1024 * 1024;
const readsInFlight = 4;
const rounds = 7;
const leastRatio = 0.8;

describe.skipIf(needs !== null)(needs ?? 'reading a dynamic VHDX', () => {
  it(`takes at most ${1 / leastRatio} times as long as qemu-nbd and nbdcopy`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'failkit-vhdx-bench-'));
    try {
      const [raw, path] = [join(folder, 'content.raw'), join(folder, 'disk.vhdx')];
      await writeFile(raw, randomFillSync(new Uint8Array(capacityBytes)));
      await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', 'vhdx', '-o', 'subformat=dynamic', raw, path]);
      await rm(raw);
      await using server = await startQemuNbd(['--read-only', '--format=vhdx', path]);
      const [ours, theirs]: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round++) {
        theirs.push(await timed(() => runNbdTool('nbdcopy', [server.uri, 'null:'])));
        ours.push(await timed(() => readAll(path)));
      }
      const ratio = Math.min(...theirs) / Math.min(...ours);
      const rate = (ms: number) => `${Math.round(capacityBytes / 2 ** 20 / (ms / 1000))} MiB/s`;
      console.log(
        `VHDX: ours ${rate(Math.min(...ours))}, QEMU ${rate(Math.min(...theirs))}, ratio ${ratio.toFixed(2)}`,
      );
      expect(ratio).toBeGreaterThan(leastRatio);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

/** From the closed file, as a run does. */
async function readAll(path: string): Promise<void> {
  await using chain = await openChain(path, { openFile: openLocalFile, onWindows: false }, never);
  if (chain === null) throw new Error('it is there');
  const { read } = readsOf(chain);
  let next = 0;
  const reader = async (): Promise<void> => {
    const into = Buffer.allocUnsafe(readBytes);
    for (let offset = next; offset < capacityBytes; offset = next) {
      next += readBytes;
      await read(offset, into, never);
    }
  };
  await Promise.all(Array.from({ length: readsInFlight }, reader));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
