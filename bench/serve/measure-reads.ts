import { statSync } from 'node:fs';
import { Random } from '../../test/random.ts';
import { type Arena, readThrough } from '../arena.ts';
import type { Contestant, Run } from '../contestants/contestant.ts';
import { failkit } from '../contestants/failkit.ts';
import { rclone } from '../contestants/rclone.ts';
import { restic } from '../contestants/restic.ts';
import { openFile, openMounted, openQemuNbd, openServed, openServeStand, type Readable } from './serve-stand.ts';

/** Reading the stored image where it is: in places anywhere, and in a row; each with nothing in memory, one read after the other. */

export const randomReads = 200;
export const sequentialBytes = 192 * 2 ** 20;
const randomBytes = 4096;
const pieceBytes = 128 * 1024;
const seed = 7;

export interface ReadRow {
  readonly round: number;
  readonly program: string;
  /** To the store and back. */
  readonly roundTripMs: number;
  readonly openMs: number;
  /** The mean of all. */
  readonly randomMs: number;
  readonly randomFetchedBytes: number;
  readonly sequentialMs: number;
  readonly sequentialFetchedBytes: number;
}

export async function readRound(
  arena: Arena,
  round: number,
  roundTripsMs: readonly number[],
  invited: readonly Contestant[],
): Promise<readonly ReadRow[]> {
  const rows: ReadRow[] = [];
  await readThrough(arena.image);
  const nothingFetched = () => 0;
  for (const [program, openAnew] of [
    ['local file', () => openFile(arena.image)],
    ['local file, qemu-nbd', () => openQemuNbd(arena.image)],
  ] as const)
    rows.push(await measureReads(arena, { round, program, roundTripMs: 0 }, openAnew, nothingFetched));
  for (const contestant of invited) {
    await using stand = await openServeStand(arena.folder, arena.image, arena.launcher);
    const run = await contestant.open(stand.place, contestant === rclone ? 'off' : 'fastest');
    await run.seed();
    for (const roundTripMs of roundTripsMs) {
      stand.wire.setDelay(roundTripMs / 2);
      const program = contestant === failkit ? 'failkit serve' : `${contestant.name}, mounted`;
      const openAnew = () => openStored(contestant, run, stand.place);
      const row = await measureReads(arena, { round, program, roundTripMs }, openAnew, () => stand.wire.receivedBytes);
      rows.push(row);
      arena.say(`${round} ${program} ${roundTripMs} ms: ${JSON.stringify(row)}`);
    }
  }
  return rows;
}

export const readers: readonly Contestant[] = [failkit, restic, rclone];

function openStored(contestant: Contestant, run: Run, place: Parameters<typeof openServed>[0]): Promise<Readable> {
  if (contestant === failkit) return openServed(place);
  if (run.mount === undefined) throw new Error(`${contestant.name} can't be mounted`);
  return openMounted(place.folder, run.mount.bind(run));
}

async function measureReads(
  arena: Arena,
  of: Pick<ReadRow, 'round' | 'program' | 'roundTripMs'>,
  openAnew: () => Promise<Readable>,
  fetchedSoFar: () => number,
): Promise<ReadRow> {
  await using original = await openFile(arena.image);
  const blocks = Math.floor(statSync(arena.image).size / randomBytes);
  const random = await timed(openAnew, fetchedSoFar, (stored) =>
    readRandomly(stored, original, { blocks, round: of.round }),
  );
  const sequential = await timed(openAnew, fetchedSoFar, (stored) => readInRow(stored, original));
  return {
    ...of,
    openMs: random.openMs,
    randomMs: random.wallMs / randomReads,
    randomFetchedBytes: random.fetchedBytes,
    sequentialMs: sequential.wallMs,
    sequentialFetchedBytes: sequential.fetchedBytes,
  };
}

async function timed(
  openAnew: () => Promise<Readable>,
  fetchedSoFar: () => number,
  work: (stored: Readable) => Promise<void>,
): Promise<{ readonly openMs: number; readonly wallMs: number; readonly fetchedBytes: number }> {
  const before = performance.now();
  await using stored = await openAnew();
  const start = performance.now();
  const fetchedBefore = fetchedSoFar();
  await work(stored);
  return { openMs: start - before, wallMs: performance.now() - start, fetchedBytes: fetchedSoFar() - fetchedBefore };
}

/** Where the image holds something; the same places for all. */
async function readRandomly(
  stored: Readable,
  original: Readable,
  { blocks, round }: { readonly blocks: number; readonly round: number },
): Promise<void> {
  const random = new Random(seed * round);
  const [found, expected] = [Buffer.alloc(randomBytes), Buffer.alloc(randomBytes)];
  for (let reads = 0; reads < randomReads; ) {
    const offset = random.below(blocks) * randomBytes;
    await original.read(offset, expected);
    if (expected.every((byte) => byte === 0)) continue;
    await stored.read(offset, found);
    requireAlike(found, expected, offset);
    reads += 1;
  }
}

async function readInRow(stored: Readable, original: Readable): Promise<void> {
  const [found, expected] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
  for (let offset = 0; offset < sequentialBytes; offset += pieceBytes) {
    await stored.read(offset, found);
    await original.read(offset, expected);
    requireAlike(found, expected, offset);
  }
}

function requireAlike(found: Buffer, expected: Buffer, offset: number): void {
  if (Buffer.compare(found, expected) !== 0) throw new Error(`other bytes at ${offset} than the image's`);
}
