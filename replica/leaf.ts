import { digestBytes } from '../crypto/suite.ts';
import { sameBytes } from './encoding.ts';
import { continues, leafBlocks, type Run } from './page.ts';
import type { RecordAddress } from './segment.ts';

/** Working on one leaf block by block, and back to canonical runs: docs/format.md §7. */

/** Where one block lies: the single-block form of a run. */
export type BlockPlace = Omit<Run, 'first' | 'count' | 'digests'> & { readonly digest: Uint8Array };

/** The leaf's 64 blocks; null reads as zero. */
export function placesOf(runs: readonly Run[], firstBlock: number): (BlockPlace | null)[] {
  const places: (BlockPlace | null)[] = new Array(leafBlocks).fill(null);
  for (const run of runs) {
    for (let i = 0; i < run.count; i++) {
      places[run.first - firstBlock + i] = {
        at: run.at,
        codec: run.codec,
        inside: run.inside + i,
        recordBlocks: run.recordBlocks,
        digest: run.digests.subarray(i * digestBytes, (i + 1) * digestBytes),
      };
    }
  }
  return places;
}

/** The canonical runs of a leaf: sorted, disjoint, split only where the record changes. */
export function runsOf(places: readonly (BlockPlace | null)[], firstBlock: number): readonly Run[] {
  const runs: { run: Run; digests: Uint8Array[] }[] = [];
  places.forEach((place, i) => {
    if (place === null) return;
    const { digest, ...rest } = place;
    const single: Run = { first: firstBlock + i, count: 1, ...rest, digests: digest };
    const open = runs.at(-1);
    if (open !== undefined && continues(open.run, single)) {
      open.run = { ...open.run, count: open.run.count + 1 };
      open.digests.push(digest);
    } else {
      runs.push({ run: single, digests: [digest] });
    }
  });
  return runs.map(({ run, digests }) => ({ ...run, digests: Buffer.concat(digests) }));
}

export function samePlace(a: BlockPlace | null, b: BlockPlace | null): boolean {
  if (a === null || b === null) return a === b;
  return a.inside === b.inside && sameAddress(a.at, b.at) && sameBytes(a.digest, b.digest);
}

function sameAddress(a: RecordAddress, b: RecordAddress): boolean {
  return a.tenure === b.tenure && a.number === b.number && a.record === b.record;
}
