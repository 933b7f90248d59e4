import { constants, zstdCompressSync } from 'node:zlib';
import { sha256 } from '../../crypto/suite.ts';
import type { Attachment } from '../../hypervisors/hypervisor.ts';
import { sameBytes } from '../../replica/encoding.ts';
import { type AttachmentChunk, type AttachmentState, attachmentChunkBytes } from '../../replica/manifest.ts';
import type { SegmentId } from '../../replica/names.ts';
import { codec, recordType } from '../../replica/segment.ts';
import type { UnitCount } from '../../replica/unit-count.ts';
import type { SegmentPacker } from './segment-packer.ts';

/** Machine configuration and firmware state, sealed with each point; what did not change is not sent again. */

const noDisk = new Uint8Array(16);

/** `isDamaged`: what lies in that segment is sent again. */
export async function protectAttachments(
  attachments: readonly Attachment[],
  previous: readonly AttachmentState[],
  isDamaged: (id: SegmentId) => boolean,
  packer: SegmentPacker,
  units: UnitCount,
  signal: AbortSignal,
): Promise<readonly AttachmentState[]> {
  const states: AttachmentState[] = [];
  for (const attachment of attachments) {
    const digest = sha256(attachment.bytes);
    const before = previous.find(({ name }) => name === attachment.name);
    const same = before !== undefined && before.length === attachment.bytes.length && sameBytes(before.sha256, digest);
    if (same && !before.chunks.some(({ at }) => isDamaged(at))) states.push(before);
    else states.push(await packAttachment(attachment, digest, packer, units, signal));
  }
  for (const before of previous.filter((candidate) => !states.includes(candidate))) {
    for (const chunk of before.chunks) units.drop(chunk.at);
  }
  return states;
}

async function packAttachment(
  attachment: Attachment,
  digest: Uint8Array,
  packer: SegmentPacker,
  units: UnitCount,
  signal: AbortSignal,
): Promise<AttachmentState> {
  const { name, bytes } = attachment;
  const count = Math.ceil(bytes.length / attachmentChunkBytes);
  const chunks: AttachmentChunk[] = [];
  for (let index = 0; index < count; index++) {
    const plaintext = bytes.subarray(index * attachmentChunkBytes, (index + 1) * attachmentChunkBytes);
    chunks.push(await packChunk(plaintext, index, count, packer, signal));
  }
  for (const chunk of chunks) units.use(chunk.at);
  return { name, length: bytes.length, sha256: digest, chunks };
}

async function packChunk(
  plaintext: Uint8Array,
  index: number,
  count: number,
  packer: SegmentPacker,
  signal: AbortSignal,
): Promise<AttachmentChunk> {
  const frame = zstdCompressSync(plaintext, { params: { [constants.ZSTD_c_contentSizeFlag]: 1 } });
  const body = frame.length < plaintext.length ? frame : plaintext;
  const used = body === frame ? codec.zstd : codec.stored;
  await packer.room(body.length, signal);
  const binding = { diskId: noDisk, firstBlock: index, blockCount: count, blockSize: attachmentChunkBytes };
  const lengths = { plaintextLength: plaintext.length, body, digests: new Uint8Array(), childDigests: [] };
  return { codec: used, at: packer.add({ type: recordType.attachment, codec: used, ...binding, ...lengths }) };
}
