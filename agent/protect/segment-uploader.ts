import { setMaxListeners } from 'node:events';
import { digestBytes, tagBytes } from '../../crypto/suite.ts';
import type { Birth } from '../../replica/control.ts';
import { toHex } from '../../replica/encoding.ts';
import type { EpochKeys } from '../../replica/key-ring.ts';
import { type LeafPlaces, runsOf } from '../../replica/leaf.ts';
import type { SegmentId } from '../../replica/names.ts';
import { encodeLeaf, leafBlocks, type Run } from '../../replica/page.ts';
import {
  recordType,
  type SealedSegment,
  segmentBytesMax,
  segmentPreambleBytes,
  type UnsealedRecord,
} from '../../replica/segment.ts';
import { SharedSlots } from '../../replica/shared-slots.ts';
import type { Tenure } from '../../replica/tenure.ts';
import type { UnitCount } from '../../replica/unit-count.ts';
import type { JournalLeaf, MachineState } from '../state/machine-state.ts';
import type { CompressionLevel } from './compression-level.ts';
import type { PipelineWorkers } from './pipeline-workers.ts';
import type { SegmentStore } from './segment-packer.ts';
import type { SharedKeys } from './shared-keys.ts';

/** Seals closed segments in a worker, puts them, and journals what became durable. A bounded number is in flight. */

export interface UploadContext {
  readonly tenure: Tenure;
  readonly keys: EpochKeys;
  readonly shared: SharedKeys;
  readonly workers: PipelineWorkers;
  readonly state: MachineState;
  readonly units: UnitCount;
  readonly level: CompressionLevel;
  readonly inFlightMax: number;
  /** Of segments; the last record may go beyond. */
  readonly segmentBytes: number;
  /** Generation of a disk, for the journal. */
  readonly generationOf: (diskId: Uint8Array) => number;
  readonly onUploaded: (bytes: number) => void;
}

export class SegmentUploader implements SegmentStore {
  readonly #context: UploadContext;
  readonly #signal: AbortSignal;
  readonly #abort = new AbortController();
  readonly #inFlight = new Set<Promise<void>>();
  readonly #slots: SharedSlots;
  #failure: { readonly error: unknown } | null = null;
  #uploadedBytes = 0;
  #lastSegmentMs = performance.now();

  constructor(context: UploadContext, signal: AbortSignal) {
    this.#context = context;
    this.#signal = AbortSignal.any([signal, this.#abort.signal]);
    setMaxListeners(0, this.#signal);
    this.#slots = new SharedSlots(segmentBytesMax(context.segmentBytes));
  }

  /** Stored bytes of the segments that are durable. */
  get uploadedBytes(): number {
    return this.#uploadedBytes;
  }

  takeSlot(): Uint8Array {
    return this.#slots.take();
  }

  async store(
    id: SegmentId,
    records: readonly UnsealedRecord[],
    slot: Uint8Array,
  ): Promise<{ pageDigests: Promise<ReadonlyMap<number, Uint8Array>> }> {
    await this.#waitForPlace();
    this.#throwFailure();
    // Sealing turns the bodies into ciphertext where they lie.
    const pages = pageBodies(records);
    const sealing = this.#seal(id, records, slot);
    const done: Promise<void> = this.#put(id, records, pages, sealing)
      // Only now: of a put that failed nobody knows when its last byte is read. Should an earlier try of this one still be
      // sending, it sends other bytes than those of its checksum, and the store refuses them.
      .then(() => this.#slots.give(slot))
      .catch((error: unknown) => {
        this.#failure ??= { error };
        this.#abort.abort(error);
      })
      .finally(() => this.#inFlight.delete(done));
    this.#inFlight.add(done);
    const pageDigests = sealing.then((sealed) => sealed.pageDigests);
    // Whoever needs the digests sees the failure, too; nobody may need them.
    pageDigests.catch(() => undefined);
    return { pageDigests };
  }

  async #waitForPlace(): Promise<void> {
    const askedMs = performance.now();
    while (this.#inFlight.size >= this.#context.inFlightMax) await Promise.race(this.#inFlight);
    const now = performance.now();
    this.#context.level.noteSegment(now - askedMs, now - this.#lastSegmentMs);
    this.#lastSegmentMs = now;
  }

  /** Everything that was stored is durable, or the first failure is thrown. */
  async drain(): Promise<void> {
    await Promise.all(this.#inFlight);
    this.#throwFailure();
  }

  /** Waits for what is under way, whatever its outcome: nothing outlives the run. */
  async settle(): Promise<void> {
    this.#abort.abort(new Error('the run has ended'));
    await Promise.allSettled(this.#inFlight);
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }

  async #seal(id: SegmentId, records: readonly UnsealedRecord[], into: Uint8Array): Promise<SealedSegment> {
    const { shared, keys, workers } = this.#context;
    const header = { ...id, context: keys.context };
    return await workers.seal(
      { dataKey: shared.dataKey, saltKey: shared.saltKey, header, records, into },
      this.#signal,
    );
  }

  async #put(
    id: SegmentId,
    records: readonly UnsealedRecord[],
    pages: readonly PageBody[],
    sealing: Promise<SealedSegment>,
  ): Promise<void> {
    const { tenure, state, units } = this.#context;
    const sealed = await sealing;
    state.stagePages(openedPages(pages, sealed.pageDigests));
    await tenure.putSegment(id, sealed.bytes, sealed.sha256, this.#signal);
    const birth: Birth = { ...id, size: sealed.bytes.length, units: unitsOf(records), sha256: sealed.sha256 };
    state.journal(birth, this.#journalLeaves(id, records));
    units.born(birth);
    this.#uploadedBytes += birth.size;
    this.#context.onUploaded(birth.size);
  }

  /** Which blocks the segment holds, leaf by leaf, so that an interrupted run does not send them again. */
  #journalLeaves(id: SegmentId, records: readonly UnsealedRecord[]): readonly JournalLeaf[] {
    const leaves = new Map<
      string,
      { readonly disk: Uint8Array; readonly leafIndex: number; readonly places: LeafPlaces }
    >();
    let offset = segmentPreambleBytes;
    records.forEach((record, number) => {
      const at = { ...id, record: number, offset, length: record.body.length + tagBytes };
      offset += at.length;
      if (record.type !== recordType.data) return;
      const leafIndex = Math.floor(record.firstBlock / leafBlocks);
      const key = `${toHex(record.diskId)} ${leafIndex}`;
      const leaf = leaves.get(key) ?? { disk: record.diskId, leafIndex, places: new Array(leafBlocks).fill(null) };
      leaves.set(key, leaf);
      const { firstBlock: first, blockCount: count, codec, digests } = record;
      const run: Run = { first, count, at, codec, inside: 0, recordBlocks: count, digests };
      leaf.places.fill(run, first - leafIndex * leafBlocks, first + count - leafIndex * leafBlocks);
    });
    return [...leaves.values()].map(({ disk, leafIndex, places }) => {
      const runs: readonly Run[] = runsOf(places, leafIndex * leafBlocks);
      const generation = this.#context.generationOf(disk);
      return { disk: toHex(disk), generation, leafIndex, page: encodeLeaf(leafIndex * leafBlocks, runs) };
    });
  }
}

function unitsOf(records: readonly UnsealedRecord[]): number {
  return records.reduce((sum, record) => sum + (record.type === recordType.data ? record.blockCount : 1), 0);
}

interface PageBody {
  readonly number: number;
  readonly body: Uint8Array;
  readonly childDigests: UnsealedRecord['childDigests'];
}

function pageBodies(records: readonly UnsealedRecord[]): readonly PageBody[] {
  return records.flatMap(({ type, body, childDigests }, number) =>
    type === recordType.page ? [{ number, body: Uint8Array.from(body), childDigests }] : [],
  );
}

/** The pages as a reader will open them: with their children's digests filled in, as sealing did to its own copy. */
function* openedPages(
  pages: readonly PageBody[],
  digests: ReadonlyMap<number, Uint8Array>,
): Generator<readonly [Uint8Array, Uint8Array]> {
  for (const { number, body, childDigests } of pages) {
    for (const child of childDigests) body.set(digests.get(child.record) ?? new Uint8Array(digestBytes), child.at);
    const digest = digests.get(number);
    if (digest !== undefined) yield [digest, body];
  }
}
