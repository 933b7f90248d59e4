/** How a VHDX writes numbers and identifiers. */

export const mebibyte = 2 ** 20;
export const zeroGuid = '00000000-0000-0000-0000-000000000000';

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Above 2^53 it is no longer exact; whatever is that large fails the check of its bounds. */
export function u64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

export function ascii(bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString('latin1');
}

/** Lower case and without braces; the first three groups are stored with their bytes reversed. */
export function guidAt(bytes: Uint8Array, at: number): string {
  const view = viewOf(bytes);
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  const rest = Buffer.from(bytes.subarray(at + 8, at + 16)).toString('hex');
  const start = `${hex(view.getUint32(at, true), 8)}-${hex(view.getUint16(at + 4, true), 4)}-${hex(view.getUint16(at + 6, true), 4)}`;
  return `${start}-${rest.slice(0, 4)}-${rest.slice(4)}`;
}

export function putGuid(bytes: Uint8Array, at: number, guid: string): void {
  const raw = Buffer.from(guid.replaceAll('-', ''), 'hex');
  raw.subarray(0, 4).reverse();
  raw.subarray(4, 6).reverse();
  raw.subarray(6, 8).reverse();
  bytes.set(raw, at);
}
