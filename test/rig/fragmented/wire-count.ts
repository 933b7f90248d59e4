import { tagBytes } from '../../../crypto/suite.ts';
import type { KeySource } from '../../../replica/key-ring.ts';
import { parseSegmentHeader, recordType, SegmentOpener, segmentPreambleBytes } from '../../../replica/segment.ts';
import type { StorageTarget } from '../../../storage-targets/storage-target.ts';

/** What runs uploaded, in bytes. Framing: all that is neither a block nor a map page. */
export interface WireBytes {
  /** Compressed blocks, as the records hold them, without tags. */
  readonly data: number;
  /** Map pages, without tags. */
  readonly map: number;
  /** Headers, tags and footers of segments. */
  readonly segmentFraming: number;
  readonly chain: number;
  readonly control: number;
  readonly other: number;
  readonly total: number;
  readonly pages: number;
  readonly blocks: number;
}

/** A target that counts what is put. Segments are not kept: nobody reads them, and 500 syncs would fill the memory. */
export class WireCount {
  readonly target: StorageTarget;
  readonly #objects: { readonly name: string; readonly bytes: Uint8Array | number }[] = [];

  constructor(target: StorageTarget) {
    this.target = {
      ...target,
      putIfAbsent: async (name, bytes, options, signal) => {
        const isSegment = name.includes('/segments/');
        if (!isSegment) await target.putIfAbsent(name, bytes, options, signal);
        this.#objects.push({ name, bytes: isSegment ? bytes.slice() : bytes.length });
      },
    };
  }

  /** Since the last call. */
  async take(keys: KeySource, signal: AbortSignal): Promise<WireBytes> {
    const sum = { data: 0, map: 0, segmentFraming: 0, chain: 0, control: 0, other: 0, total: 0, pages: 0, blocks: 0 };
    for (const { name, bytes } of this.#objects.splice(0)) {
      const length = typeof bytes === 'number' ? bytes : bytes.length;
      sum.total += length;
      if (typeof bytes !== 'number') await addSegment(sum, bytes, keys, signal);
      else if (name.includes('/chain/')) sum.chain += length;
      else if (name.includes('/control/')) sum.control += length;
      else sum.other += length;
    }
    return sum;
  }
}

async function addSegment(
  sum: { data: number; map: number; segmentFraming: number; pages: number; blocks: number },
  bytes: Uint8Array,
  keys: KeySource,
  signal: AbortSignal,
): Promise<void> {
  const preamble = bytes.subarray(0, segmentPreambleBytes);
  const header = parseSegmentHeader(preamble, 'segment');
  const { key } = await keys.epoch(header.context.epoch, signal);
  using opener = SegmentOpener.open(key, header, preamble, 'segment');
  let inside = 0;
  for (const record of opener.openFooter(bytes)) {
    const body = record.length - tagBytes;
    inside += body;
    if (record.type === recordType.page) {
      sum.map += body;
      sum.pages++;
    } else {
      sum.data += body;
      sum.blocks += record.blockCount;
    }
  }
  sum.segmentFraming += bytes.length - inside;
}
