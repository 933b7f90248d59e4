import type { MadeBlock, MadeFile } from '../vhdx/vhdx-maker.ts';
import { makeVhdx, mebibyte } from '../vhdx/vhdx-maker.ts';

/** A disk of the model: what the guest wrote and when, and the VHDX files that Hyper-V would have below a checkpoint. */

const sectorBytes = 512;
const blockBytes = mebibyte;

export interface ModelFile {
  readonly path: string;
  readonly dataWriteGuid: string;
  readonly content: Buffer;
  /** Of the last write in it. */
  readonly writes: number;
}

export interface ModelDisk {
  readonly key: string;
  readonly label: string;
  identity: string;
  /** What the guest sees. */
  content: Buffer;
  /** Below checkpoints, the oldest first; nobody writes to them. */
  frozen: ModelFile[];
  /** Where the guest's writes go. */
  leaf: { path: string; dataWriteGuid: string };
  log: { readonly at: number; readonly offset: number; readonly length: number }[];
  writes: number;
  /** Changes with everything that makes Hyper-V forget. */
  epoch: number;
  shared: boolean;
  passThrough: boolean;
}

export function newDisk(label: string, key: string, path: string, content: Buffer): ModelDisk {
  return {
    ...{ key, label, content, identity: guidOf(`${path} who`), frozen: [], log: [], writes: 0, epoch: 1 },
    ...{ leaf: { path, dataWriteGuid: guidOf(path) }, shared: false, passThrough: false },
  };
}

export function writeTo(disk: ModelDisk, offset: number, bytes: Uint8Array): void {
  disk.content.set(bytes, offset);
  disk.log.push({ at: ++disk.writes, offset, length: bytes.length });
}

/** What no file holds any more, and tracking tells nobody: the end of a disk that was cut off and added again, or what the guest gave back. */
export function freeSilently(disk: ModelDisk, offset: number, length: number): void {
  disk.content = Buffer.from(disk.content);
  disk.content.fill(0, offset, Math.min(offset + length, disk.content.length));
}

export function trackingId({ epoch, key }: ModelDisk, writes: number): string {
  return `rct:${key}:${epoch}:${writes}`;
}

/** What was written since, up to what the file holds; null: it knows no such id. */
export function changesBetween(disk: ModelDisk, since: string, file: ModelFile): ModelDisk['log'] | null {
  const [, key, epoch, writes] = since.split(':');
  if (key !== disk.key || Number(epoch) !== disk.epoch) return null;
  return disk.log.filter(({ at }) => at > Number(writes) && at <= file.writes);
}

export function freeze(disk: ModelDisk, mark: string): void {
  disk.frozen.push({ ...disk.leaf, content: Buffer.from(disk.content), writes: disk.writes });
  const path = `${baseOf(disk).replace(/\.vhdx$/, '')}_${mark}.avhdx`;
  disk.leaf = { path, dataWriteGuid: guidOf(path) };
}

/** What was written meanwhile goes into the file below: whoever looked at that would see it change. */
export function merge(disk: ModelDisk): void {
  const below = disk.frozen.pop();
  if (below !== undefined)
    disk.leaf = { path: below.path, dataWriteGuid: guidOf(`${below.path} ${disk.writes} ${disk.leaf.path}`) };
}

function baseOf({ frozen, leaf }: ModelDisk): string {
  return frozen[0]?.path ?? leaf.path;
}

const zeros = Buffer.alloc(blockBytes);
const made = new WeakMap<ModelFile, MadeFile>();

/** As Windows would have it on its storage. */
export function fileOf(disk: ModelDisk, path: string): MadeFile | null {
  const index = disk.frozen.findIndex((file) => file.path === path);
  const file = disk.frozen[index];
  if (file === undefined) return null;
  const known = made.get(file);
  if (known !== undefined) return known;
  const below = disk.frozen[index - 1];
  const { content, dataWriteGuid } = file;
  const { identity } = disk;
  const parent = below === undefined ? null : { dataWriteGuid: below.dataWriteGuid, entries: linksTo(below) };
  const blocks = blocksOf(content, below?.content ?? null);
  const vhdx = makeVhdx({
    ...{ capacityBytes: content.length, sectorBytes, blockBytes, blocks, parent, dataWriteGuid, identity },
  });
  made.set(file, vhdx);
  return vhdx;
}

function linksTo({ path, dataWriteGuid }: ModelFile): Readonly<Record<string, string>> {
  return {
    parent_linkage: `{${dataWriteGuid}}`,
    parent_linkage2: '{00000000-0000-0000-0000-000000000000}',
    relative_path: `.\\${path.split('/').at(-1)}`,
    absolute_win32_path: `C:\\machines\\${path.split('/').at(-1)}`,
  };
}

function blocksOf(content: Buffer, below: Buffer | null): ReadonlyMap<number, MadeBlock> {
  const blocks = new Map<number, MadeBlock>();
  for (let block = 0; block * blockBytes < content.length; block++) {
    const bytes = Buffer.alloc(blockBytes);
    content.copy(bytes, 0, block * blockBytes, (block + 1) * blockBytes);
    const isZero = bytes.equals(zeros);
    if (below === null) {
      if (!isZero) blocks.set(block, { state: 'full', bytes });
      continue;
    }
    const under = Buffer.alloc(blockBytes);
    below.copy(under, 0, block * blockBytes, (block + 1) * blockBytes);
    if (bytes.equals(under)) continue;
    const has = Array.from({ length: blockBytes / sectorBytes }, (_, i) => differs(bytes, under, i * sectorBytes));
    blocks.set(block, isZero ? { state: 'zero' } : { state: 'partial', bytes, has });
  }
  return blocks;
}

function differs(one: Buffer, other: Buffer, at: number): boolean {
  return one.compare(other, at, at + sectorBytes, at, at + sectorBytes) !== 0;
}

/** The same text, the same identifier. */
export function guidOf(text: string): string {
  let [a, b] = [0x811c9dc5, 0x01000193];
  for (const character of text) {
    a = Math.imul(a ^ character.charCodeAt(0), 0x01000193) >>> 0;
    b = Math.imul(b + character.charCodeAt(0), 0x85ebca6b) >>> 0;
  }
  const [x, y] = [a, b].map((half) => half.toString(16).padStart(8, '0'));
  return `${x}-${y?.slice(0, 4)}-4${y?.slice(4, 7)}-8${x?.slice(0, 3)}-${y}${x?.slice(4)}`;
}
