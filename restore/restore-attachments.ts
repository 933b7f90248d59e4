import { existsSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256 } from '../crypto/suite.ts';
import { sameBytes } from '../replica/encoding.ts';
import { type AttachmentState, attachmentChunkBytes } from '../replica/manifest.ts';
import { recordType } from '../replica/segment.ts';
import type { SegmentReader } from '../replica/segment-reader.ts';
import { ContentMismatch, expand } from './open-range.ts';
import { makeOutputFolder, OutputExists, outputError } from './sinks/raw-sink.ts';

/** Machine configuration and firmware state, as it was captured with the point. */

const noDisk = new Uint8Array(16);

/** Writes each into the folder under its own name; names are checked by the manifest's parser. */
export async function restoreAttachments(
  attachments: readonly AttachmentState[],
  folder: string,
  reader: SegmentReader,
  force: boolean,
  signal: AbortSignal,
): Promise<void> {
  if (attachments.length === 0) return;
  await makeOutputFolder(folder);
  for (const attachment of attachments) {
    const path = join(folder, attachment.name);
    if (!force && existsSync(path))
      throw new OutputExists(`${path} exists: choose another folder, or say --force to overwrite it`);
    await writeOutput(path, await readAttachment(attachment, reader, signal));
  }
}

/** Whole or not there: what a run that was killed left behind is no reason to refuse the next one. */
async function writeOutput(path: string, bytes: Uint8Array): Promise<void> {
  const partial = `${path}.partial`;
  try {
    await writeFile(partial, bytes, { mode: 0o600, flush: true });
    await rename(partial, path);
  } catch (error) {
    throw outputError(error, path);
  }
}

export async function readAttachment(
  attachment: AttachmentState,
  reader: SegmentReader,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (const index of attachment.chunks.keys())
    parts.push(await readAttachmentChunk(attachment, index, reader, signal));
  const bytes = Buffer.concat(parts);
  if (sameBytes(sha256(bytes), attachment.sha256)) return bytes;
  throw new ContentMismatch(`attachment ${attachment.name}: its content is not what the recovery point names`);
}

/** The plaintext of one chunk, its tag checked. */
export async function readAttachmentChunk(
  attachment: AttachmentState,
  index: number,
  reader: SegmentReader,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const chunk = attachment.chunks[index];
  if (chunk === undefined) throw new RangeError(`attachment ${attachment.name} has no chunk ${index}`);
  const plaintextLength = Math.min(attachmentChunkBytes, attachment.length - index * attachmentChunkBytes);
  const binding = {
    type: recordType.attachment,
    codec: chunk.codec,
    diskId: noDisk,
    firstBlock: index,
    blockCount: attachment.chunks.length,
    blockSize: attachmentChunkBytes,
    plaintextLength,
  };
  const where = `${reader.nameOf(chunk.at)} record ${chunk.at.record}`;
  return expand(await reader.readBody(chunk.at, binding, signal), chunk.codec, plaintextLength, where);
}
