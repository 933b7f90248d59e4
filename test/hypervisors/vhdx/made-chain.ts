import type { Random } from '../../random.ts';
import { bytesOf } from './memory-file.ts';
import { type MadeBlock, makeVhdx, mebibyte } from './vhdx-maker.ts';

/** Random differencing chains, with what the disk holds according to whoever made them. */

export interface MadeLayer {
  readonly name: string;
  readonly bytes: Buffer;
}

export interface MadeChain {
  /** The base first. */
  readonly layers: readonly MadeLayer[];
  readonly content: Buffer;
  readonly top: MadeLayer;
}

export interface ChainShape {
  readonly depth: number;
  readonly sectorBytes: 512 | 4096;
  /** What every reader agrees on: undefined and unmapped blocks may read as anything, and 7-Zip opens no disk of an odd number of sectors. */
  readonly onlyDefined?: boolean;
  /** Children that are larger or smaller than what they lie over. */
  readonly resizes?: boolean;
}

export function madeChain(random: Random, { depth, sectorBytes, onlyDefined, resizes }: ChainShape): MadeChain {
  const blockBytes = mebibyte * random.pick([1, 1, 2]);
  const layers: MadeLayer[] = [];
  let content = Buffer.alloc(0);
  let parentGuid: string | null = null;
  for (let i = 0; i < depth; i++) {
    const sectors =
      ((1 + random.below(4)) * mebibyte) / sectorBytes - (onlyDefined === true ? 2 : 1) * random.below(100);
    const capacityBytes: number = i === 0 || resizes === true ? sectors * sectorBytes : content.length;
    const under = content;
    content = Buffer.alloc(capacityBytes);
    under.copy(content);
    const blocks = new Map<number, MadeBlock>();
    for (let block = 0; block * blockBytes < capacityBytes; block++) {
      const made = madeBlock(random, i > 0, { blockBytes, sectorBytes, onlyDefined: onlyDefined === true });
      if (made === null) continue;
      blocks.set(block, made);
      applyBlock(content, block * blockBytes, made, blockBytes, sectorBytes);
    }
    const name = `layer-${i}.${i === 0 ? '' : 'a'}vhdx`;
    const dataWriteGuid = `${(random.below(2 ** 32) + 1).toString(16).padStart(8, '0')}-0000-4000-8000-00000000000${i}`;
    const parent =
      parentGuid === null
        ? null
        : { dataWriteGuid: parentGuid, entries: linksTo(`layer-${i - 1}.${i === 1 ? '' : 'a'}vhdx`, parentGuid) };
    layers.push({
      name,
      bytes: bytesOf(makeVhdx({ capacityBytes, sectorBytes, blockBytes, blocks, parent, dataWriteGuid })),
    });
    parentGuid = dataWriteGuid;
  }
  const top = layers.at(-1);
  if (top === undefined) throw new Error('a chain has a layer at least');
  return { layers, content, top };
}

/** As Windows writes them: a second linkage of zeros, and paths of its own. */
export function linksTo(name: string, guid: string): Readonly<Record<string, string>> {
  return {
    parent_linkage: `{${guid}}`,
    parent_linkage2: '{00000000-0000-0000-0000-000000000000}',
    relative_path: `.\\${name}`,
    absolute_win32_path: `C:\\machines\\${name}`,
  };
}

function madeBlock(
  random: Random,
  isChild: boolean,
  { blockBytes, sectorBytes, onlyDefined }: { blockBytes: number; sectorBytes: number; onlyDefined: boolean },
): MadeBlock | null {
  const states = isChild
    ? (['none', 'full', 'zero', 'partial', 'partial'] as const)
    : (['none', 'full', 'full', 'zero'] as const);
  const others = onlyDefined ? [] : (['unmapped', 'undefined'] as const);
  const state = random.pick([...states, ...others]);
  if (state === 'none') return null;
  if (state !== 'full' && state !== 'partial') return { state };
  const bytes = Buffer.alloc(blockBytes, 1 + random.below(255));
  for (let at = 0; at < blockBytes; at += sectorBytes)
    bytes.writeUInt32LE(random.below(2 ** 32), at + random.below(sectorBytes - 4));
  if (state === 'full') return { state, bytes };
  return { state, bytes, has: madeBits(random, blockBytes / sectorBytes) };
}

/** Runs of any length, single bits and whole bytes among them. */
function madeBits(random: Random, count: number): readonly boolean[] {
  const bits: boolean[] = [];
  for (let set = random.chance(0.5); bits.length < count; set = !set) {
    const length = 1 + random.below(random.pick([2, 9, 70, 700]));
    for (let i = 0; i < length && bits.length < count; i++) bits.push(set);
  }
  return bits;
}

function applyBlock(content: Buffer, start: number, made: MadeBlock, blockBytes: number, sectorBytes: number): void {
  const end = Math.min(content.length, start + blockBytes);
  if (made.state === 'full') content.set(made.bytes.subarray(0, end - start), start);
  else if (made.state !== 'partial') content.fill(0, start, end);
  else
    for (let at = start; at < end; at += sectorBytes) {
      if (made.has[(at - start) / sectorBytes] !== true) continue;
      content.set(made.bytes.subarray(at - start, Math.min(at - start + sectorBytes, end - start)), at);
    }
}
