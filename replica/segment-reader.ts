import { pageDigest, tagBytes } from '../crypto/suite.ts';
import type { MapGeometry, PageSource, PrefetchedPage } from './block-map.ts';
import { isDamage } from './damage.ts';
import { sameBytes, toHex } from './encoding.ts';
import type { EpochKeys, KeySource } from './key-ring.ts';
import { type SegmentId, segmentKey, segmentName } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { type PageRef, pageSpan } from './page.ts';
import {
  codec,
  parseSegmentHeader,
  type RecordAddress,
  type RecordBinding,
  recordType,
  SegmentMisplaced,
  SegmentOpener,
  segmentPreambleBytes,
} from './segment.ts';

/** Reading single records of segments by ranged GETs, and the map's pages among them. */

const openersCachedMax = 512;
const preamblesCachedMax = 8192;
/** A gap between two wanted ranges that is cheaper to read than to ask again. */
const gapBytesMax = 512 * 1024;
const prefetchBytesMax = 8 * 2 ** 20;
const prefetchedPagesMax = 8192;

/** A page's stored bytes are not the ones that its parent vouches for. */
export class PageReplaced extends Error {
  readonly code = 'PAGE_REPLACED';
  override readonly name = 'PageReplaced';
}

export class SegmentReader implements PageSource, Disposable {
  readonly #repo: OpenRepository;
  readonly #machineId: Uint8Array;
  readonly #keys: KeySource;
  readonly #openers = new Map<string, Promise<SegmentOpener>>();
  readonly #preambles = new Map<string, Promise<Uint8Array>>();
  readonly #opened = new Set<SegmentOpener>();
  readonly #prefetched = new Map<string, Uint8Array>();

  constructor(repo: OpenRepository, machineId: Uint8Array, keys: KeySource) {
    this.#repo = repo;
    this.#machineId = machineId;
    this.#keys = keys;
  }

  nameOf(id: SegmentId): string {
    return segmentName(this.#machineId, id);
  }

  /** The stored bytes from `offset` on, in `into` where that is given; never short. Those from the start on spare the reading of the preamble. */
  async readRange(
    id: SegmentId,
    offset: number,
    length: number,
    signal: AbortSignal,
    into?: Uint8Array,
  ): Promise<Uint8Array> {
    const reading = this.#repo.target.get(this.nameOf(id), { offset, length }, signal, { ...(into && { into }) });
    if (offset === 0 && length >= segmentPreambleBytes) this.#keepPreamble(id, reading);
    return await reading;
  }

  #keepPreamble(id: SegmentId, reading: Promise<Uint8Array>): void {
    const key = segmentKey(id);
    const preamble = reading.then((bytes) => bytes.slice(0, segmentPreambleBytes));
    this.#preambles.set(key, preamble);
    forgetOldest(this.#preambles, preamblesCachedMax);
    // Whoever waits for it sees the failure; the next one tries again.
    preamble.catch(() => this.#preambles.delete(key));
  }

  /** Header and commitment of a segment, read once. */
  async preamble(id: SegmentId, signal: AbortSignal): Promise<Uint8Array> {
    const known = this.#preambles.get(segmentKey(id));
    if (known === undefined) return await this.readRange(id, 0, segmentPreambleBytes, signal);
    try {
      return await known;
    } catch {
      // It came with more, and that more may be what can't be read: asked for alone, it says itself what is wrong.
      signal.throwIfAborted();
      return await this.readRange(id, 0, segmentPreambleBytes, signal);
    }
  }

  knowsPreamble(id: SegmentId): boolean {
    return this.#preambles.has(segmentKey(id));
  }

  async opener(id: SegmentId, signal: AbortSignal): Promise<SegmentOpener> {
    const key = segmentKey(id);
    const known = this.#openers.get(key);
    if (known !== undefined) return await known;
    const opening = this.#open(id, signal);
    this.#openers.set(key, opening);
    try {
      const opener = await opening;
      this.#opened.add(opener);
      // Not zeroed: somebody may be about to use it. Its keys open one segment only.
      forgetOldest(this.#openers, openersCachedMax);
      return opener;
    } catch (error) {
      this.#openers.delete(key);
      throw error;
    }
  }

  /** The opened body of a record. */
  async readBody(at: RecordAddress, binding: RecordBinding, signal: AbortSignal): Promise<Uint8Array> {
    const opener = await this.opener(at, signal);
    return opener.openBody(at.record, binding, await this.readRange(at, at.offset, at.length, signal));
  }

  async readPage(
    geometry: MapGeometry,
    ref: PageRef,
    level: number,
    firstBlock: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const key = toHex(ref.digest);
    const sealed = this.#prefetched.get(key) ?? (await this.readRange(ref, ref.offset, ref.length, signal));
    this.#prefetched.delete(key);
    if (!sameBytes(pageDigest(sealed), ref.digest)) {
      throw new PageReplaced(
        `${this.nameOf(ref)} record ${ref.record}: is not the page that its parent names: altered or replaced`,
      );
    }
    const opener = await this.opener(ref, signal);
    return opener.openBody(ref.record, pageBinding(geometry, ref, level, firstBlock), sealed);
  }

  /** Fetches pages that lie near each other with one request. */
  async prefetch(_geometry: MapGeometry, pages: readonly PrefetchedPage[], signal: AbortSignal): Promise<void> {
    if (pages.length < 2) return;
    if (this.#prefetched.size > prefetchedPagesMax) this.#prefetched.clear();
    const wanted = pages.map(({ ref }) => ref).filter((ref) => !this.#prefetched.has(toHex(ref.digest)));
    for (const group of coalesce(wanted, gapBytesMax, prefetchBytesMax)) await this.#prefetchRange(group, signal);
  }

  async #prefetchRange(group: CoalescedRange<PageRef>, signal: AbortSignal): Promise<void> {
    try {
      const bytes = await this.readRange(group.id, group.offset, group.length, signal);
      for (const ref of group.members) {
        const from = ref.offset - group.offset;
        this.#prefetched.set(toHex(ref.digest), bytes.slice(from, from + ref.length));
      }
    } catch (error) {
      // Each page is asked for by itself later, and then says exactly what is wrong with it.
      if (!isDamage(error)) throw error;
    }
  }

  /** The keys of the epoch that a segment's header names. Throws SegmentMisplaced for one that its machine never had. */
  async keysOf(id: SegmentId, signal: AbortSignal): Promise<EpochKeys> {
    const object = this.nameOf(id);
    const { epoch } = parseSegmentHeader(await this.preamble(id, signal), object).context;
    if (this.#keys.mayHave(epoch)) return await this.#keys.epoch(epoch, signal);
    throw new SegmentMisplaced(`${object}: names key epoch ${epoch}, which its chain does not know: it was altered`);
  }

  async #open(id: SegmentId, signal: AbortSignal): Promise<SegmentOpener> {
    const { key, context } = await this.keysOf(id, signal);
    return SegmentOpener.open(key, { ...id, context }, await this.preamble(id, signal), this.nameOf(id));
  }

  [Symbol.dispose](): void {
    for (const opener of this.#opened) opener[Symbol.dispose]();
    this.#openers.clear();
  }
}

function forgetOldest<T>(cache: Map<string, T>, max: number): void {
  const oldest = cache.size > max ? cache.keys().next().value : undefined;
  if (oldest !== undefined) cache.delete(oldest);
}

function pageBinding(geometry: MapGeometry, ref: RecordAddress, level: number, firstBlock: number): RecordBinding {
  return {
    type: recordType.page,
    codec: codec.stored,
    diskId: geometry.diskId,
    firstBlock,
    blockCount: pageSpan(level),
    blockSize: geometry.blockSize,
    plaintextLength: ref.length - tagBytes,
  };
}

export interface CoalescedRange<T> {
  readonly id: SegmentId;
  readonly offset: number;
  readonly length: number;
  readonly members: readonly T[];
}

/** Groups records by segment into ranges without larger gaps, each at most `bytesMax` long unless one record is longer. */
export function coalesce<T extends RecordAddress>(
  records: readonly T[],
  gapMax: number,
  bytesMax: number,
): readonly CoalescedRange<T>[] {
  const sorted = [...records].sort((a, b) => a.tenure - b.tenure || a.number - b.number || a.offset - b.offset);
  const groups: { id: SegmentId; offset: number; end: number; members: T[] }[] = [];
  for (const record of sorted) {
    const group = groups.at(-1);
    const end = record.offset + record.length;
    const joins =
      group !== undefined &&
      segmentKey(group.id) === segmentKey(record) &&
      record.offset - group.end <= gapMax &&
      end - group.offset <= bytesMax;
    if (joins) {
      group.members.push(record);
      group.end = Math.max(group.end, end);
    } else {
      groups.push({
        id: { tenure: record.tenure, number: record.number },
        offset: record.offset,
        end,
        members: [record],
      });
    }
  }
  return groups.map(({ id, offset, end, members }) => ({ id, offset, length: end - offset, members }));
}
