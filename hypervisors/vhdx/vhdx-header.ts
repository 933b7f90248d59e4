import { crc32cWithout } from './crc32c.ts';
import { ImageCorrupt, ImageUnsupported } from './image-errors.ts';
import { ascii, guidAt, mebibyte, u64, viewOf, zeroGuid } from './little-endian.ts';
import { type RandomAccessFile, readBytes } from './random-access-file.ts';

/** The file identifier and the two headers (MS-VHDX 2.2). The newer whole header counts: the other one may be torn. */

export const headerOffsets = [64 * 1024, 128 * 1024] as const;
export const headerBytes = 4096;
/** Identifier, headers and region tables lie in the first MiB. */
export const headerSectionBytes = mebibyte;

export interface VhdxHeader {
  /** Changes with every first write after the file was opened: what a child holds on to. */
  readonly dataWriteGuid: string;
  /** Null: there is nothing to replay. */
  readonly logGuid: string | null;
  readonly logOffset: number;
  readonly logLength: number;
}

interface FoundHeader {
  readonly bytes: Uint8Array;
  readonly sequence: bigint;
}

export async function readHeader(file: RandomAccessFile, signal: AbortSignal): Promise<VhdxHeader> {
  if (file.sizeBytes < headerSectionBytes)
    throw new ImageCorrupt(`${file.path} is no VHDX image: it has only ${file.sizeBytes} bytes`);
  const identifier = await readBytes(file, 0, 8, signal);
  if (ascii(identifier, 0, 8) !== 'vhdxfile')
    throw new ImageCorrupt(`${file.path} is no VHDX image: it does not begin as one`);
  const headers: FoundHeader[] = [];
  for (const offset of headerOffsets) {
    const found = wholeHeader(await readBytes(file, offset, headerBytes, signal));
    if (found !== null) headers.push(found);
  }
  return parseHeader(file, newest(file, headers));
}

function wholeHeader(bytes: Uint8Array): FoundHeader | null {
  const view = viewOf(bytes);
  if (ascii(bytes, 0, 4) !== 'head' || view.getUint32(4, true) !== crc32cWithout(bytes, 4)) return null;
  return { bytes, sequence: view.getBigUint64(8, true) };
}

/** Equal sequence numbers are fine where the headers are equal: some writers leave it so. */
function newest({ path }: RandomAccessFile, [first, second]: readonly FoundHeader[]): Uint8Array {
  if (first === undefined) throw new ImageCorrupt(`${path}: neither of its headers is whole`);
  if (second === undefined) return first.bytes;
  if (first.sequence === second.sequence && Buffer.compare(first.bytes, second.bytes) !== 0)
    throw new ImageCorrupt(`${path}: its headers differ, and have the same number`);
  return second.sequence > first.sequence ? second.bytes : first.bytes;
}

function parseHeader({ path, sizeBytes }: RandomAccessFile, bytes: Uint8Array): VhdxHeader {
  const view = viewOf(bytes);
  const [logVersion, version] = [view.getUint16(64, true), view.getUint16(66, true)];
  if (version !== 1 || logVersion !== 0)
    throw new ImageUnsupported(
      `${path} has version ${version} of VHDX, log version ${logVersion}: only 1 and 0 are read`,
    );
  const logGuid = guidAt(bytes, 48);
  const [logLength, logOffset] = [view.getUint32(68, true), u64(view, 72)];
  const aligned = logLength % mebibyte === 0 && logOffset % mebibyte === 0;
  const inside = logLength === 0 || (logOffset >= headerSectionBytes && logOffset + logLength <= sizeBytes);
  if (!aligned || !inside || (logLength === 0 && logGuid !== zeroGuid))
    throw new ImageCorrupt(`${path}: its log of ${logLength} bytes at ${logOffset} is not inside the file`);
  return { dataWriteGuid: guidAt(bytes, 32), logGuid: logGuid === zeroGuid ? null : logGuid, logOffset, logLength };
}
