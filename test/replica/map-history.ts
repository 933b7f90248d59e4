import { blockDigest } from '../../crypto/suite.ts';
import { BlockMap, type MapGeometry } from '../../replica/block-map.ts';
import type { Birth, Death } from '../../replica/control.ts';
import { placesOf, runsOf } from '../../replica/leaf.ts';
import { dropSubtree, MapWriter } from '../../replica/map-writer.ts';
import { compareSegments, segmentKey } from '../../replica/names.ts';
import { leafBlocks, type PageRef, type Run } from '../../replica/page.ts';
import type { RecordAddress } from '../../replica/segment.ts';
import { UnitCount } from '../../replica/unit-count.ts';
import { MemoryPacker, MemorySegments } from './memory-segments.ts';
import { dataRecord, diskId, filled } from './specimens.ts';

/** A disk's maps over several publishes, beside a plain picture of what each must say. */

const signal = new AbortController().signal;
export const blockSize = 16;
const recordBlocksMax = 4;
const digestKey = filled(32, 0x09);

export interface MapSettings {
  readonly segmentBytes: number;
  readonly pendingPagesMax: number | undefined;
  /** Pages that overflow go to a packer of their own, as data does, or to the one that takes the last pages. */
  readonly ownOverflow: boolean;
}

/** One publish: the disk's new size in blocks and what happens to some of its blocks. */
export interface MapStep {
  readonly blocks: number;
  readonly writes: readonly { readonly first: number; readonly count: number; readonly clear: boolean }[];
}

export interface MapPoint {
  readonly map: BlockMap;
  /** Block number to the number of the write that it holds. */
  readonly picture: ReadonlyMap<number, number>;
  readonly births: readonly Birth[];
  readonly deaths: readonly Death[];
  readonly unborn: readonly string[];
}

/** What write number `write` put into a block. */
export function contentOf(block: number, write: number): Uint8Array {
  const content = new Uint8Array(blockSize);
  new DataView(content.buffer).setUint32(0, block);
  new DataView(content.buffer).setUint32(4, write);
  return content;
}

export class MapHistory {
  readonly segments = new MemorySegments(7);
  readonly points: MapPoint[] = [];
  readonly #settings: MapSettings;
  #writes = 0;

  constructor(settings: MapSettings) {
    this.#settings = settings;
    const geometry = geometryOf(1);
    const map = new BlockMap(geometry, null, this.segments);
    this.points.push({ map, picture: new Map(), births: [], deaths: [], unborn: [] });
  }

  get newest(): MapPoint {
    const point = this.points.at(-1);
    if (point === undefined) throw new Error('no point');
    return point;
  }

  async publish(step: MapStep): Promise<void> {
    const before = this.newest;
    const units = new UnitCount();
    const { segmentBytes, pendingPagesMax, ownOverflow } = this.#settings;
    const data = new MemoryPacker(this.segments, segmentBytes, (birth) => units.born(birth));
    const pages = new MemoryPacker(this.segments, segmentBytes, (birth) => units.born(birth));
    const overflow = ownOverflow ? data : pages;
    const geometry = geometryOf(step.blocks);
    const writer = await MapWriter.start(geometry, before.map, units, overflow, signal, { pendingPagesMax });
    const picture = await this.#write(step, before, writer, data);
    if (ownOverflow) data.flush();
    const placed = await writer.finish(pages, signal);
    data.flush();
    pages.flush();
    const map = new BlockMap(geometry, placed === null ? null : this.#withDigest(placed), this.segments);
    this.points.push({ map, picture, births: units.births(), deaths: units.deaths(), unborn: units.unborn() });
  }

  /** Counts what the newest map refers to as dropped: its disk is gone. */
  async dropAll(): Promise<readonly Death[]> {
    const units = new UnitCount();
    const { map } = this.newest;
    if (map.root !== null) await dropSubtree(map, map.root, map.level, 0, units, signal);
    return units.deaths();
  }

  async #write(step: MapStep, before: MapPoint, writer: MapWriter, packer: MemoryPacker): Promise<Map<number, number>> {
    const picture = new Map([...before.picture].filter(([block]) => block < step.blocks));
    const changes = new Map<number, number | null>();
    for (const { first, count, clear } of step.writes) {
      this.#writes++;
      const end = Math.min(first + count, step.blocks);
      for (let block = first; block < end; block++) changes.set(block, clear ? null : this.#writes);
    }
    const leaves = [...new Set([...changes.keys()].map((block) => Math.floor(block / leafBlocks)))].sort(
      (a, b) => a - b,
    );
    for (const leaf of leaves)
      await writer.replaceLeaf(leaf, await this.#leaf(leaf, step, before, changes, packer), signal);
    for (const [block, write] of changes) {
      if (write === null) picture.delete(block);
      else picture.set(block, write);
    }
    return picture;
  }

  async #leaf(
    leaf: number,
    step: MapStep,
    before: MapPoint,
    changes: ReadonlyMap<number, number | null>,
    packer: MemoryPacker,
  ): Promise<ReturnType<typeof runsOf>> {
    const firstBlock = leaf * leafBlocks;
    const places = placesOf(await before.map.leafRuns(leaf, signal), firstBlock);
    for (let i = 0; i < leafBlocks; i++) {
      if (firstBlock + i >= step.blocks || changes.get(firstBlock + i) === null) places[i] = null;
    }
    for (let i = 0; i < leafBlocks; i++) {
      let count = 0;
      while (
        count < recordBlocksMax &&
        i + count < leafBlocks &&
        typeof changes.get(firstBlock + i + count) === 'number'
      )
        count++;
      if (count === 0) continue;
      places.fill(await this.#record(firstBlock + i, count, changes, packer), i, i + count);
      i += count - 1;
    }
    return runsOf(places, firstBlock);
  }

  async #record(
    first: number,
    count: number,
    changes: ReadonlyMap<number, number | null>,
    packer: MemoryPacker,
  ): Promise<Run> {
    const contents = Array.from({ length: count }, (_, i) => contentOf(first + i, changes.get(first + i) ?? 0));
    const record = dataRecord(first, count, Buffer.concat(contents));
    await packer.room(record.body.length);
    const at = packer.add(record);
    const digests = Buffer.concat(contents.map((content) => blockDigest(digestKey, content)));
    return { first, count, at, codec: 0, inside: 0, recordBlocks: count, digests };
  }

  #withDigest(placed: RecordAddress | PageRef): PageRef {
    if ('digest' in placed) return placed;
    const digest = this.segments.segment(placed).pageDigests.get(placed.record);
    if (digest === undefined) throw new Error('the root is no page');
    return { ...placed, digest };
  }
}

function geometryOf(blocks: number): MapGeometry {
  // The last block is cut short.
  return { diskId, blockSize, capacityBytes: blocks * blockSize - 3 };
}

/** A fresh map over the same root: nothing of it comes from a cache. */
export function reopened({ map }: MapPoint, segments: MemorySegments): BlockMap {
  return new BlockMap(map.geometry, map.root, segments);
}

/** Every unit that a point refers to, found by walking it: `segment record` of pages, `segment record block` of blocks. */
export async function reachableUnits(point: MapPoint, segments: MemorySegments): Promise<ReadonlySet<string>> {
  const units = new Set<string>();
  const add = (unit: string): void => {
    if (units.has(unit)) throw new Error(`${unit} is referred to twice`);
    units.add(unit);
  };
  for await (const { ref, page } of reopened(point, segments).pages(signal)) {
    add(`${segmentKey(ref)} ${ref.record}`);
    if (!('runs' in page)) continue;
    for (const run of page.runs) {
      for (let i = 0; i < run.count; i++) add(`${segmentKey(run.at)} ${run.at.record} ${run.inside + i}`);
    }
  }
  return units;
}

/** Units by segment. */
export function perSegment(units: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const unit of units) {
    const segment = unit.split(' ')[0] ?? '';
    counts.set(segment, (counts.get(segment) ?? 0) + 1);
  }
  return counts;
}

export function byKey(deaths: readonly Death[]): Map<string, number> {
  const sorted = [...deaths].sort(compareSegments);
  const counts = new Map(sorted.map((death) => [segmentKey(death), death.units]));
  if (counts.size !== deaths.length) throw new Error('a segment whose deaths are listed twice');
  return counts;
}
