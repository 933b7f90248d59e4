/** Makes VHDX files from the specification alone (MS-VHDX), sharing nothing with the reader: whoever reads them back must agree with it. */

export const mebibyte = 2 ** 20;
export const metadataAt = 2 * mebibyte;
export const blockTableAt = 3 * mebibyte;
export const logAt = 2 ** 20;

export type MadeBlock =
  | { readonly state: 'undefined' | 'zero' | 'unmapped' }
  | { readonly state: 'full'; readonly bytes: Uint8Array }
  | { readonly state: 'partial'; readonly bytes: Uint8Array; readonly has: readonly boolean[] };

export interface MadeParent {
  readonly dataWriteGuid: string;
  readonly entries: Readonly<Record<string, string>>;
}

export interface VhdxPlan {
  readonly capacityBytes: number;
  readonly sectorBytes: 512 | 4096;
  readonly blockBytes: number;
  readonly blocks: ReadonlyMap<number, MadeBlock>;
  readonly parent: MadeParent | null;
  readonly dataWriteGuid: string;
  /** Of the log that is still to be replayed; null: none is. */
  readonly logGuid?: string;
  /** Of the disk; the same for a child. */
  readonly identity?: string;
}

export interface MadeFile {
  readonly sizeBytes: number;
  readonly parts: readonly { readonly at: number; readonly bytes: Uint8Array }[];
}

const states = { undefined: 1, zero: 2, unmapped: 3, full: 6, partial: 7 } as const;
const guids = {
  blockTable: '2DC27766-F623-4200-9D64-115E9BFD4A08',
  metadata: '8B7CA206-4790-4B9A-B8FE-575F050F886E',
  fileParameters: 'CAA16737-FA36-4D43-B3B6-33F0AA44E76B',
  size: '2FA54224-CD1B-4876-B211-5DBED83BF4B8',
  identity: 'BECA12AB-B2E6-4523-93EF-C309E000C746',
  logicalSector: '8141BF1D-A96F-4709-BA47-F233A8FAAB5F',
  physicalSector: 'CDA348C7-445D-4471-9CC9-E9885251C556',
  locator: 'A8D35F2D-B30B-454D-ABF7-D3D84834AB0C',
  locatorType: 'B04AEFB7-D19E-4A81-B789-25B8E9445913',
} as const;

export function makeVhdx(plan: VhdxPlan): MadeFile {
  const chunk = (2 ** 23 * plan.sectorBytes) / plan.blockBytes;
  const blocks = Math.ceil(plan.capacityBytes / plan.blockBytes);
  const entries = Math.ceil(blocks / chunk) * (chunk + 1);
  const tableBytes = Math.ceil((entries * 8) / mebibyte) * mebibyte;
  const table = Buffer.alloc(tableBytes);
  const parts: { at: number; bytes: Uint8Array }[] = [];
  let end = blockTableAt + tableBytes;
  const put = (index: number, state: number, bytes: Uint8Array | null, length: number): void => {
    table.writeBigUInt64LE((bytes === null ? 0n : BigInt(end)) | BigInt(state), index * 8);
    if (bytes === null) return;
    parts.push({ at: end, bytes });
    end += length;
  };
  const bitmaps = new Map<number, Buffer>();
  for (const [number, block] of plan.blocks) {
    const index = number + Math.floor(number / chunk);
    put(index, states[block.state], 'bytes' in block ? block.bytes : null, plan.blockBytes);
    if (block.state !== 'partial') continue;
    const bitmap = bitmaps.get(Math.floor(number / chunk)) ?? Buffer.alloc(mebibyte);
    bitmaps.set(Math.floor(number / chunk), bitmap);
    const first = (number % chunk) * (plan.blockBytes / plan.sectorBytes);
    for (const [i, has] of block.has.entries())
      if (has) bitmap[(first + i) >> 3] = (bitmap[(first + i) >> 3] ?? 0) | (1 << ((first + i) & 7));
  }
  for (const [number, bitmap] of bitmaps) put(number * (chunk + 1) + chunk, 6, bitmap, mebibyte);
  parts.push({ at: blockTableAt, bytes: table });
  return { sizeBytes: end, parts: [...structures(plan, tableBytes), ...parts] };
}

function structures(plan: VhdxPlan, tableBytes: number): MadeFile['parts'] {
  const regions = Buffer.alloc(65_536);
  regions.write('regi', 0, 'latin1');
  regions.writeUInt32LE(2, 8);
  for (const [i, [guid, at, length]] of (
    [
      [guids.blockTable, blockTableAt, tableBytes],
      [guids.metadata, metadataAt, mebibyte],
    ] as const
  ).entries()) {
    guidBytes(guid).copy(regions, 16 + 32 * i);
    regions.writeBigUInt64LE(BigInt(at), 32 + 32 * i);
    regions.writeUInt32LE(length, 40 + 32 * i);
    regions.writeUInt32LE(1, 44 + 32 * i);
  }
  sum(regions);
  return [
    { at: 0, bytes: Buffer.concat([Buffer.from('vhdxfile'), Buffer.from('maker', 'utf16le')]) },
    { at: 65_536, bytes: madeHeader(plan, 6) },
    { at: 131_072, bytes: madeHeader(plan, 7) },
    { at: 196_608, bytes: regions },
    { at: 262_144, bytes: regions },
    { at: metadataAt, bytes: madeMetadata(plan) },
  ];
}

function madeHeader(plan: VhdxPlan, sequence: number): Buffer {
  const header = Buffer.alloc(4096);
  header.write('head', 0, 'latin1');
  header.writeBigUInt64LE(BigInt(sequence), 8);
  // 7-Zip takes two files with one identifier for the same one.
  guidBytes(plan.dataWriteGuid).reverse().copy(header, 16);
  guidBytes(plan.dataWriteGuid).copy(header, 32);
  if (plan.logGuid !== undefined) guidBytes(plan.logGuid).copy(header, 48);
  header.writeUInt16LE(1, 66);
  header.writeUInt32LE(mebibyte, 68);
  header.writeBigUInt64LE(BigInt(logAt), 72);
  return sum(header);
}

function madeMetadata(plan: VhdxPlan): Buffer {
  const u32 = (...values: number[]): Buffer => {
    const bytes = Buffer.alloc(4 * values.length);
    for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, 4 * i);
    return bytes;
  };
  const items: (readonly [string, Buffer, number])[] = [
    [guids.fileParameters, u32(plan.blockBytes, plan.parent === null ? 0 : 2), 4],
    [guids.size, u32(plan.capacityBytes % 2 ** 32, Math.floor(plan.capacityBytes / 2 ** 32)), 6],
    [guids.identity, guidBytes(plan.identity ?? '99999999-8888-7777-6666-555555555555'), 6],
    [guids.logicalSector, u32(plan.sectorBytes), 6],
    [guids.physicalSector, u32(4096), 6],
  ];
  if (plan.parent !== null) items.push([guids.locator, locator(plan.parent), 4]);
  const table = Buffer.alloc(65_536);
  table.write('metadata', 0, 'latin1');
  table.writeUInt16LE(items.length, 10);
  let at = table.length;
  for (const [i, [guid, bytes, flags]] of items.entries()) {
    guidBytes(guid).copy(table, 32 + 32 * i);
    u32(at, bytes.length, flags).copy(table, 48 + 32 * i);
    at += bytes.length;
  }
  return Buffer.concat([table, ...items.map(([, bytes]) => bytes)]);
}

function locator({ entries }: MadeParent): Buffer {
  const pairs = Object.entries(entries).map(
    ([key, value]) => [Buffer.from(key, 'utf16le'), Buffer.from(value, 'utf16le')] as const,
  );
  const head = Buffer.alloc(20 + 12 * pairs.length);
  guidBytes(guids.locatorType).copy(head);
  head.writeUInt16LE(pairs.length, 18);
  let at = head.length;
  for (const [i, [key, value]] of pairs.entries()) {
    head.writeUInt32LE(at, 20 + 12 * i);
    head.writeUInt32LE(at + key.length, 24 + 12 * i);
    head.writeUInt16LE(key.length, 28 + 12 * i);
    head.writeUInt16LE(value.length, 30 + 12 * i);
    at += key.length + value.length;
  }
  return Buffer.concat([head, ...pairs.flat()]);
}

export interface LogWrite {
  readonly at: number;
  /** 4096 bytes, or how many zeros. */
  readonly bytes: Uint8Array | number;
}

/** One entry, whole; `tail`: the place in the log of the sequence's first. */
export function makeLogEntry(
  guid: string,
  sequence: number,
  tail: number,
  fileBytes: number,
  writes: readonly LogWrite[],
): Buffer {
  const head = Buffer.alloc(Math.ceil((64 + 32 * writes.length) / 4096) * 4096);
  const sectors: Buffer[] = [];
  for (const [i, { at, bytes }] of writes.entries()) {
    const descriptor = 64 + 32 * i;
    head.writeBigUInt64LE(BigInt(at), descriptor + 16);
    head.writeBigUInt64LE(BigInt(sequence), descriptor + 24);
    if (typeof bytes === 'number') {
      head.write('zero', descriptor, 'latin1');
      head.writeBigUInt64LE(BigInt(bytes), descriptor + 8);
      continue;
    }
    head.write('desc', descriptor, 'latin1');
    const sector = Buffer.from(bytes);
    sector.copy(head, descriptor + 4, 4092, 4096);
    sector.copy(head, descriptor + 8, 0, 8);
    sector.write('data', 0, 'latin1');
    sector.writeUInt32LE(0, 4);
    sector.writeUInt32LE(sequence, 4092);
    sectors.push(sector);
  }
  const entry = Buffer.concat([head, ...sectors]);
  entry.write('loge', 0, 'latin1');
  entry.writeUInt32LE(entry.length, 8);
  entry.writeUInt32LE(tail, 12);
  entry.writeBigUInt64LE(BigInt(sequence), 16);
  entry.writeUInt32LE(writes.length, 24);
  guidBytes(guid).copy(entry, 32);
  entry.writeBigUInt64LE(BigInt(fileBytes), 48);
  entry.writeBigUInt64LE(BigInt(fileBytes), 56);
  return sum(entry);
}

/** Sets the checksum at byte 4. */
export function sum(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(0, 4);
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crcs[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  bytes.writeUInt32LE((crc ^ 0xffffffff) >>> 0, 4);
  return bytes;
}

const crcs = Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc;
});

function guidBytes(guid: string): Buffer {
  const hex = guid.replaceAll('-', '');
  const reversed = (text: string): string => (text.match(/../g) ?? []).reverse().join('');
  return Buffer.from(
    reversed(hex.slice(0, 8)) + reversed(hex.slice(8, 12)) + reversed(hex.slice(12, 16)) + hex.slice(16),
    'hex',
  );
}
