/**
 * A VHDX read sector by sector, straight from the specification and without any check: what a mutated file means where nothing in it
 * says that it is mutated. Shares nothing with the reader.
 */
export function naiveSector(files: readonly Buffer[], sector: number): Buffer {
  const [file, ...parents] = files;
  if (file === undefined) throw new Error('no file');
  const header = [65_536, 131_072]
    .map((at) => file.subarray(at, at + 4096))
    .filter((bytes) => bytes.toString('latin1', 0, 4) === 'head')
    .sort((a, b) => (a.readBigUInt64LE(8) < b.readBigUInt64LE(8) ? 1 : -1))[0];
  if (header === undefined || header.subarray(48, 64).some((byte) => byte !== 0)) throw new Error('a log');
  const table = file.toString('latin1', 196_608, 196_612) === 'regi' ? 196_608 : 262_144;
  const regionTable = file.subarray(table, table + 65_536);
  const regions = listed(regionTable, 16, regionTable.readUInt32LE(8), (at) =>
    Number(regionTable.readBigUInt64LE(at + 16)),
  );
  const metadata = file.subarray(regions.get('metadata'));
  const items = listed(metadata, 32, metadata.readUInt16LE(10), (at) => metadata.readUInt32LE(at + 16));
  const item = (name: string): number => items.get(name) ?? Number.NaN;
  const blockBytes = metadata.readUInt32LE(item('parameters'));
  const hasParent = (metadata.readUInt32LE(item('parameters') + 4) & 2) !== 0;
  const capacity = Number(metadata.readBigUInt64LE(item('size')));
  const sectorBytes = metadata.readUInt32LE(item('sector'));
  const zeros = Buffer.alloc(sectorBytes);
  if (sector * sectorBytes >= capacity) return zeros;
  const chunk = (2 ** 23 * sectorBytes) / blockBytes;
  const block = Math.floor((sector * sectorBytes) / blockBytes);
  const blockTable = regions.get('table') ?? Number.NaN;
  const entry = (index: number): { state: number; at: number } => {
    const bits = file.readBigUInt64LE(blockTable + index * 8);
    return { state: Number(bits & 7n), at: Number((bits >> 20n) << 20n) };
  };
  const { state, at } = entry(block + Math.floor(block / chunk));
  const here = at + ((sector * sectorBytes) % blockBytes);
  const ask = (): Buffer => (hasParent ? naiveSector(parents, sector) : zeros);
  if (state === 6) return file.subarray(here, here + sectorBytes);
  if (state === 0) return ask();
  if (state !== 7) return zeros;
  const bitmap = entry(Math.floor(block / chunk) * (chunk + 1) + chunk).at;
  const bit = sector % ((chunk * blockBytes) / sectorBytes);
  return (((file[bitmap + Math.floor(bit / 8)] ?? 0) >> (bit % 8)) & 1) === 1
    ? file.subarray(here, here + sectorBytes)
    : ask();
}

const names: Readonly<Record<string, string>> = {
  '6677c22d23f600429d64115e9bfd4a08': 'table',
  '06a27c8b90479a4bb8fe575f050f886e': 'metadata',
  '3767a1ca36fa434db3b633f0aa44e76b': 'parameters',
  '2442a52f1bcd7648b2115dbed83bf4b8': 'size',
  '1dbf41816fa90947ba47f233a8faab5f': 'sector',
};

function listed(bytes: Buffer, first: number, count: number, placeAt: (at: number) => number): Map<string, number> {
  const found = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const at = first + 32 * i;
    const name = names[bytes.subarray(at, at + 16).toString('hex')];
    if (name !== undefined) found.set(name, placeAt(at));
  }
  return found;
}
