/** CRC-32C (Castagnoli), which Node lacks: its zlib has only the other polynomial. Eight bytes a step, by tables. */

const polynomial = 0x82f63b78;
const tables = makeTables();

/** Over the bytes with the four at `checksumAt` taken as zero, as every structure of a VHDX is summed. */
export function crc32cWithout(bytes: Uint8Array, checksumAt: number): number {
  const before = update(0xffffffff, bytes.subarray(0, checksumAt));
  const blank = update(before, new Uint8Array(4));
  return (update(blank, bytes.subarray(checksumAt + 4)) ^ 0xffffffff) >>> 0;
}

function update(start: number, bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
  let crc = start;
  let at = 0;
  for (const end = bytes.length - 7; at < end; at += 8) {
    const low = (crc ^ view.getUint32(at, true)) >>> 0;
    const high = view.getUint32(at + 4, true);
    crc =
      at8(t7, low) ^
      at8(t6, low >>> 8) ^
      at8(t5, low >>> 16) ^
      at8(t4, low >>> 24) ^
      at8(t3, high) ^
      at8(t2, high >>> 8) ^
      at8(t1, high >>> 16) ^
      at8(t0, high >>> 24);
  }
  for (; at < bytes.length; at++) crc = at8(t0, crc ^ (bytes[at] ?? 0)) ^ (crc >>> 8);
  return crc;
}

function at8(table: Uint32Array, index: number): number {
  return table[index & 0xff] ?? 0;
}

type Tables = readonly [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
];

function makeTables(): Tables {
  const first = new Uint32Array(256).map((_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
    return crc;
  });
  const next = (table: Uint32Array): Uint32Array => table.map((crc) => at8(first, crc) ^ (crc >>> 8));
  const [second, third] = [next(first), next(next(first))];
  const [fourth, fifth] = [next(third), next(next(third))];
  const [sixth, seventh] = [next(fifth), next(next(fifth))];
  return [first, second, third, fourth, fifth, sixth, seventh, next(seventh)];
}
