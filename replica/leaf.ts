import { digestBytes } from '../crypto/suite.ts';
import { continues, leafBlocks, type Run } from './page.ts';
import type { RecordAddress } from './segment.ts';

/** Working on one leaf block by block, and back to canonical runs: docs/format.md §7. */

/** Of each of the leaf's 64 blocks the run that holds it, shared by all of the run's blocks; null reads as zero. */
export type LeafPlaces = (Run | null)[];

export function placesOf(runs: readonly Run[], firstBlock: number): LeafPlaces {
  const places: LeafPlaces = new Array(leafBlocks).fill(null);
  for (const run of runs) places.fill(run, run.first - firstBlock, run.first + run.count - firstBlock);
  return places;
}

/** The canonical runs of a leaf: sorted, disjoint, split only where the record changes. */
export function runsOf(places: readonly (Run | null)[], firstBlock: number): readonly Run[] {
  const runs: Run[] = [];
  for (let i = 0; i < places.length; ) {
    const run = places[i] ?? null;
    let end = i + 1;
    while (end < places.length && places[end] === run) end++;
    if (run !== null) append(runs, part(run, firstBlock + i, firstBlock + end));
    i = end;
  }
  return runs;
}

function append(runs: Run[], next: Run): void {
  const open = runs.at(-1);
  if (open === undefined || !continues(open, next)) runs.push(next);
  else
    runs[runs.length - 1] = {
      ...open,
      count: open.count + next.count,
      digests: Buffer.concat([open.digests, next.digests]),
    };
}

/** What the run says of these blocks, which are its own. */
function part(run: Run, first: number, end: number): Run {
  if (first === run.first && end === run.first + run.count) return run;
  const from = first - run.first;
  const count = end - first;
  const digests = run.digests.subarray(from * digestBytes, (from + count) * digestBytes);
  return { ...run, first, count, inside: run.inside + from, digests };
}

export function digestOf(run: Run, block: number): Uint8Array {
  const at = (block - run.first) * digestBytes;
  return run.digests.subarray(at, at + digestBytes);
}

/** Whether both runs have the block in the same place, with the same content. */
export function samePlace(a: Run | null, b: Run | null, block: number): boolean {
  if (a === b) return true;
  if (a === null || b === null) return false;
  return insideOf(a, block) === insideOf(b, block) && sameAddress(a.at, b.at) && sameDigest(a, b, block);
}

function insideOf(run: Run, block: number): number {
  return run.inside + block - run.first;
}

function sameDigest(a: Run, b: Run, block: number): boolean {
  return Buffer.compare(digestOf(a, block), digestOf(b, block)) === 0;
}

function sameAddress(a: RecordAddress, b: RecordAddress): boolean {
  return a.tenure === b.tenure && a.number === b.number && a.record === b.record;
}
