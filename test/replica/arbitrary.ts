import fc from 'fast-check';
import { type LeafPlaces, runsOf } from '../../replica/leaf.ts';
import {
  type AttachmentState,
  attachmentChunkBytes,
  type DiskState,
  flagged,
  type Manifest,
} from '../../replica/manifest.ts';
import { type ChildRef, leafBlocks, type PageRef, type Run } from '../../replica/page.ts';
import type { Codec, RecordAddress } from '../../replica/segment.ts';

/** Random values of everything that the format encodes. */

export function bytesOf(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

const corners = [0, 1, 127, 128, 16_383, 16_384, 2 ** 32 - 1, 2 ** 32, 2 ** 49 - 1, 2 ** 49, 2 ** 53 - 1];
export const anyNumber = fc.oneof(fc.nat({ max: 300 }), fc.maxSafeNat(), fc.constantFrom(...corners));
export const anyText = fc.string({ unit: 'binary', maxLength: 20 });
export const anyId = bytesOf(16);
const anyCodec: fc.Arbitrary<Codec> = fc.constantFrom(0, 1);

const anyAddress: fc.Arbitrary<RecordAddress> = fc.record({
  tenure: fc.nat({ max: 5 }),
  number: fc.nat({ max: 5 }),
  record: fc.nat({ max: 4095 }),
  offset: anyNumber,
  length: fc.oneof(fc.integer({ min: 16, max: 500_000 }), fc.constant(2 ** 53 - 1)),
});

const anyPageRef: fc.Arbitrary<PageRef> = fc.tuple(anyAddress, bytesOf(16)).map(([at, digest]) => ({ ...at, digest }));

/** Up to 8 records with up to 4 blocks each, from which the leaf's 64 blocks pick what they refer to. */
export function anyLeafPlaces(firstBlock: number): fc.Arbitrary<Readonly<LeafPlaces>> {
  const record = fc.record({
    start: fc.nat({ max: leafBlocks - 1 }),
    blocks: fc.integer({ min: 1, max: 4 }),
    at: anyAddress,
    codec: anyCodec,
    kept: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
    digests: fc.array(bytesOf(16), { minLength: 4, maxLength: 4 }),
  });
  return fc.array(record, { maxLength: 8 }).map((records) => {
    const places: LeafPlaces = new Array(leafBlocks).fill(null);
    records.forEach(({ start, blocks, at, codec, kept, digests: all }, i) => {
      const recordBlocks = Math.min(blocks, leafBlocks - start);
      for (let inside = 0; inside < recordBlocks; inside++) {
        if (kept[inside] !== true) continue;
        const digests = all[inside] ?? new Uint8Array(16);
        // Records differ in their number, so that no two of them pass for one.
        const first = firstBlock + start + inside;
        places[start + inside] = { first, count: 1, at: { ...at, record: i }, codec, inside, recordBlocks, digests };
      }
    });
    return firstBlock >= 0 ? places : [];
  });
}

/** A canonical, non-empty leaf that covers the blocks from `firstBlock` on. */
export function anyLeaf(firstBlock: number): fc.Arbitrary<readonly Run[]> {
  return anyLeafPlaces(firstBlock)
    .map((places) => runsOf(places, firstBlock))
    .filter((runs) => runs.length > 0);
}

export type SealedChildRef = ChildRef & { readonly digest: Uint8Array };

export const anyChildren: fc.Arbitrary<readonly SealedChildRef[]> = fc
  .tuple(
    fc.subarray(
      Array.from({ length: 64 }, (_, i) => i),
      { minLength: 1, maxLength: 64 },
    ),
    fc.array(anyPageRef, { minLength: 64, maxLength: 64 }),
  )
  .map(([positions, refs]) =>
    positions.flatMap((child) => {
      const ref = refs[child];
      return ref === undefined ? [] : [{ ...ref, child }];
    }),
  );

function anyDisk(index: number): fc.Arbitrary<DiskState> {
  return fc
    .record({
      diskId: anyId,
      label: anyText,
      generation: fc.integer({ min: 1, max: 1000 }),
      blockSize: fc.constantFrom(65_536, 131_072, 262_144, 524_288, 1_048_576),
      capacityBytes: fc.oneof(fc.nat(), fc.constantFrom(0, 1, 65_536, 65_537, 2 ** 42)),
      fullReadReason: anyText,
      generationReason: anyText,
      referencePoint: fc.option(fc.uint8Array({ maxLength: 40 })),
      root: fc.option(anyPageRef),
    })
    .map((disk) => ({
      ...disk,
      diskId: Uint8Array.from(disk.diskId).fill(index, 15),
      label: `${disk.label} ${index}`,
      root: disk.capacityBytes === 0 ? null : disk.root,
    }));
}

function anyAttachment(index: number): fc.Arbitrary<AttachmentState> {
  return fc
    .tuple(fc.stringMatching(/^[A-Za-z0-9._-]{0,90}$/), fc.nat({ max: 4 * attachmentChunkBytes }), bytesOf(32))
    .chain(([name, length, sha256]) =>
      fc
        .array(fc.record({ codec: anyCodec, at: anyAddress }), {
          minLength: Math.ceil(length / attachmentChunkBytes),
          maxLength: Math.ceil(length / attachmentChunkBytes),
        })
        .map((chunks) => ({ name: `${name}-${index}`, length, sha256, chunks })),
    );
}

const anyRemarks = fc
  .uniqueArray(
    fc.record({ kind: fc.integer({ min: 2, max: 500 }), value: fc.uint8Array({ minLength: 1, maxLength: 20 }) }),
    { minLength: 1, maxLength: 3, selector: ({ kind }) => kind },
  )
  .map((remarks) => remarks.sort((a, b) => a.kind - b.kind));

export const anyManifest: fc.Arbitrary<Manifest> = fc
  .tuple(
    fc.record({
      machineName: anyText,
      sourceKind: fc.constantFrom('image', 'kvm', 'vsphere', 'hyperv'),
      snapshotTimeMs: anyNumber,
      consistency: fc.constantFrom('crash-consistent', 'application-consistent', 'inconsistent'),
      readBytes: anyNumber,
      changedBytes: anyNumber,
      uploadedBytes: anyNumber,
      disks: fc.nat({ max: 3 }).chain((count) => fc.tuple(...Array.from({ length: count }, (_, i) => anyDisk(i)))),
      excluded: fc
        .array(fc.record({ label: anyText, reason: anyText }), { maxLength: 3 })
        .map((list) => list.map((item, i) => ({ ...item, label: `${item.label} out ${i}` }))),
      attachments: fc
        .nat({ max: 3 })
        .chain((count) => fc.tuple(...Array.from({ length: count }, (_, i) => anyAttachment(i)))),
    }),
    fc.option(anyRemarks, { nil: undefined }),
    fc.option(
      anyText.filter((text) => text !== ''),
      { nil: undefined },
    ),
  )
  .map(([plain, remarks, flag]) => {
    const remarked: Manifest = remarks === undefined ? plain : { ...plain, remarks };
    return flag === undefined ? remarked : flagged(remarked, flag);
  });
