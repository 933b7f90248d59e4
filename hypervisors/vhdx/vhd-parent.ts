import { ImageCorrupt } from './image-errors.ts';
import type { ParentPath, ParentReference } from './image-layer.ts';
import { ascii, viewOf } from './little-endian.ts';
import { type RandomAccessFile, readBytes } from './random-access-file.ts';

/** What a differencing VHD was laid over: its dynamic header names the parent by identifier, by name and in locators. */

const locators = { first: 576, bytes: 24, count: 8 } as const;
const pathBytesMax = 64 * 1024;

export async function parentOf(
  file: RandomAccessFile,
  header: Uint8Array,
  signal: AbortSignal,
): Promise<ParentReference> {
  const identifier = Buffer.from(header.subarray(40, 56)).toString('hex');
  if (/^0+$/.test(identifier)) throw new ImageCorrupt(`${file.path}: it does not say which parent it was laid over`);
  const paths: ParentPath[] = [];
  for (let i = 0; i < locators.count; i++) {
    const at = locators.first + locators.bytes * i;
    // Windows, relative or absolute, in UTF-16. The older codes for other systems are not written any more.
    const platform = ascii(header, at, 4);
    if (platform !== 'W2ru' && platform !== 'W2ku') continue;
    const path = await locatorPath(file, header, at, signal);
    const found = { relative: platform === 'W2ru', path };
    if (found.relative) paths.unshift(found);
    else paths.push(found);
  }
  const name = Buffer.from(header.subarray(64, 576)).swap16().toString('utf16le').split('\0')[0] ?? '';
  if (name !== '') paths.push({ relative: false, path: name });
  return { identifiers: new Set([identifier]), paths };
}

async function locatorPath(
  file: RandomAccessFile,
  header: Uint8Array,
  at: number,
  signal: AbortSignal,
): Promise<string> {
  const view = viewOf(header);
  const [length, offset] = [view.getUint32(at + 8), Number(view.getBigUint64(at + 16))];
  if (length === 0 || length > pathBytesMax || length % 2 !== 0 || offset + length > file.sizeBytes)
    throw new ImageCorrupt(`${file.path}: its parent locator of ${length} bytes at ${offset} is broken`);
  const bytes = await readBytes(file, offset, length, signal);
  return new TextDecoder('utf-16le').decode(bytes).replace(/\0+$/, '');
}
