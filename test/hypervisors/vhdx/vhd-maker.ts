/** Makes growing VHD files from the specification alone, sharing nothing with the reader. Blocks of 2 MiB, sectors of 512 bytes. */

export const vhdBlockBytes = 2 * 2 ** 20;
const headerAt = 512;
const locatorAt = 2048;
const tableAt = 4096;

export interface VhdPlan {
  readonly capacityBytes: number;
  readonly identifier: Uint8Array;
  readonly parent: { readonly identifier: Uint8Array; readonly name: string } | null;
  /** Which sectors of a block are in this file. */
  readonly blocks: ReadonlyMap<number, { readonly bytes: Uint8Array; readonly has: readonly boolean[] }>;
}

export function makeVhd({ capacityBytes, identifier, parent, blocks }: VhdPlan): Buffer {
  const count = Math.ceil(capacityBytes / vhdBlockBytes);
  const tableBytes = Math.ceil((count * 4) / 512) * 512;
  const table = Buffer.alloc(tableBytes, 0xff);
  const parts: Buffer[] = [];
  let end = tableAt + tableBytes;
  for (const [number, { bytes, has }] of blocks) {
    table.writeUInt32BE(end / 512, number * 4);
    const bitmap = Buffer.alloc(512);
    for (const [i, each] of has.entries()) if (each) bitmap[i >> 3] = (bitmap[i >> 3] ?? 0) | (0x80 >> (i & 7));
    parts.push(bitmap, Buffer.from(bytes));
    end += 512 + vhdBlockBytes;
  }
  const footer = madeFooter(capacityBytes, identifier, parent !== null);
  const start = Buffer.alloc(tableAt);
  footer.copy(start);
  madeHeader(count, parent).copy(start, headerAt);
  if (parent !== null) Buffer.from(`.\\${parent.name}`, 'utf16le').copy(start, locatorAt);
  return Buffer.concat([start, table, ...parts, footer]);
}

function madeFooter(capacityBytes: number, identifier: Uint8Array, differs: boolean): Buffer {
  const footer = Buffer.alloc(512);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x10000, 12);
  footer.writeBigUInt64BE(BigInt(headerAt), 16);
  footer.write('make', 28, 'latin1');
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(capacityBytes), 40);
  footer.writeBigUInt64BE(BigInt(capacityBytes), 48);
  footer.writeUInt32BE(differs ? 4 : 3, 60);
  footer.set(identifier, 68);
  return complemented(footer, 64);
}

function madeHeader(count: number, parent: VhdPlan['parent']): Buffer {
  const header = Buffer.alloc(1024);
  header.write('cxsparse', 0, 'latin1');
  header.fill(0xff, 8, 16);
  header.writeBigUInt64BE(BigInt(tableAt), 16);
  header.writeUInt32BE(0x10000, 24);
  header.writeUInt32BE(count, 28);
  header.writeUInt32BE(vhdBlockBytes, 32);
  if (parent !== null) {
    header.set(parent.identifier, 40);
    Buffer.from(parent.name, 'utf16le').swap16().copy(header, 64);
    const path = Buffer.from(`.\\${parent.name}`, 'utf16le');
    header.write('W2ru', 576, 'latin1');
    header.writeUInt32BE(512, 580);
    header.writeUInt32BE(path.length, 584);
    header.writeBigUInt64BE(BigInt(locatorAt), 592);
  }
  return complemented(header, 36);
}

function complemented(bytes: Buffer, at: number): Buffer {
  bytes.writeUInt32BE(~bytes.reduce((sum, byte) => sum + byte, 0) >>> 0, at);
  return bytes;
}
