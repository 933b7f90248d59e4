import { randomUUID } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { FilePiece } from '../hypervisor.ts';
import { crc32cWithout } from './crc32c.ts';
import { PageCache } from './file-pages.ts';
import { mebibyte, putGuid, viewOf } from './little-endian.ts';
import { metadataIds, metadataTableBytes } from './metadata.ts';
import type { RandomAccessFile } from './random-access-file.ts';
import { regionIds, regionTableBytes, regionTableOffsets } from './region-table.ts';
import { blockState, entryBytes } from './vhdx-block-table.ts';
import { headerBytes, headerOffsets } from './vhdx-header.ts';
import { openVhdxLayer } from './vhdx-layer.ts';

/** Dynamic VHDX images, as Windows makes them: blocks of 32 MiB, that come when something is written to them. */

const blockBytes = 32 * mebibyte;
const sectorBytes = 512;
const physicalSectorBytes = 4096;
/** In MiB: the section of headers, then log, metadata and block table. */
const places = { log: 1, metadata: 2, blockTable: 3 } as const;
const identifierBytes = 8;

/** Images of Windows have whole sectors. */
function vhdxCapacity(capacityBytes: number): number {
  return Math.ceil(capacityBytes / sectorBytes) * sectorBytes;
}

/** From its first byte on a whole image: one that nobody finished holds what was written so far. */
export class VhdxWriter {
  readonly #file: FileHandle;
  /** Where each block lies, in MiB; 0: nowhere. */
  readonly #blocks: Uint32Array;
  #endMebibytes: number;
  /** The table and the file's end change one after the other: a shorter end would cut off a longer one. */
  #last: Promise<void> = Promise.resolve();

  private constructor(file: FileHandle, blocks: Uint32Array) {
    this.#file = file;
    this.#blocks = blocks;
    const first = places.blockTable + tableMebibytes(blocks.length);
    const ends = blocks.reduce(
      (end, place) => (place === 0 ? end : Math.max(end, place + blockBytes / mebibyte)),
      first,
    );
    this.#endMebibytes = ends;
  }

  /** Whatever the file holds is gone. */
  static async create(file: FileHandle, capacityBytes: number): Promise<VhdxWriter> {
    const blocks = new Uint32Array(Math.ceil(capacityBytes / blockBytes));
    await file.truncate(0);
    await file.truncate((places.blockTable + tableMebibytes(blocks.length)) * mebibyte);
    for (const { at, bytes } of emptyImage(vhdxCapacity(capacityBytes), tableMebibytes(blocks.length)))
      await file.write(bytes, 0, bytes.length, at);
    return new VhdxWriter(file, blocks);
  }

  /** Goes on with an image that `create` began. Throws ImageCorrupt where it is torn. Null: it is another disk's, or another program's. */
  static async reopen(
    file: FileHandle,
    read: RandomAccessFile,
    capacityBytes: number,
    signal: AbortSignal,
  ): Promise<VhdxWriter | null> {
    const layer = await openVhdxLayer(read, new PageCache(), signal);
    if (layer.capacityBytes !== vhdxCapacity(capacityBytes) || layer.parent !== null) return null;
    const blocks = new Uint32Array(Math.ceil(capacityBytes / blockBytes));
    for (let at = 0; at < layer.capacityBytes; ) {
      const run = await layer.runAt(at, layer.capacityBytes, signal);
      const end = at + run.length;
      if (at % blockBytes !== 0 || (end % blockBytes !== 0 && end !== layer.capacityBytes)) return null;
      if (run.kind === 'data')
        for (let block = at; block < end; block += blockBytes)
          blocks[block / blockBytes] = (run.at + block - at) / mebibyte;
      at = end;
    }
    return new VhdxWriter(file, blocks);
  }

  /** Where the bytes of the range go. Blocks that are not there yet are made. */
  async place(fd: number, offset: number, length: number): Promise<readonly FilePiece[]> {
    const added: number[] = [];
    const pieces = this.#pieces(fd, offset, length, (block) => {
      this.#blocks[block] = this.#endMebibytes;
      this.#endMebibytes += blockBytes / mebibyte;
      added.push(block);
    });
    if (added.length > 0) {
      const end = this.#endMebibytes;
      this.#last = this.#last.then(() => this.#enter(added, end));
    }
    // Those that an earlier caller made are in the table first, too.
    await this.#last;
    return pieces;
  }

  /** The same for reading: what no piece covers reads as zero. */
  written(fd: number, offset: number, length: number): readonly FilePiece[] {
    return this.#pieces(fd, offset, length, null);
  }

  #pieces(fd: number, start: number, length: number, add: ((block: number) => void) | null): readonly FilePiece[] {
    const pieces: FilePiece[] = [];
    const end = start + length;
    for (let at = start; at < end; ) {
      const block = Math.floor(at / blockBytes);
      const to = Math.min(end, (block + 1) * blockBytes);
      if (this.#blocks[block] === 0) add?.(block);
      const place = this.#blocks[block] ?? 0;
      if (place !== 0) pieces.push({ at, length: to - at, fd, offset: place * mebibyte + (at % blockBytes) });
      at = to;
    }
    return pieces;
  }

  async #enter(blocks: readonly number[], endMebibytes: number): Promise<void> {
    await this.#file.truncate(endMebibytes * mebibyte);
    for (const block of blocks) {
      const entry = new Uint8Array(entryBytes);
      const bits = (BigInt(this.#blocks[block] ?? 0) << 20n) | BigInt(blockState.present);
      viewOf(entry).setBigUint64(0, bits, true);
      await this.#file.write(entry, 0, entryBytes, places.blockTable * mebibyte + entryIndex(block) * entryBytes);
    }
  }
}

/** After each chunk stands an entry for a sector bitmap, which only a differencing image has. */
function entryIndex(block: number): number {
  return block + Math.floor(block / ((2 ** 23 * sectorBytes) / blockBytes));
}

function tableMebibytes(blocks: number): number {
  return Math.ceil((entryIndex(blocks) * entryBytes) / mebibyte);
}

interface Written {
  readonly at: number;
  readonly bytes: Uint8Array;
}

function emptyImage(capacityBytes: number, tableMebibytesCount: number): readonly Written[] {
  const identifier = new Uint8Array(512);
  identifier.set(Buffer.from('vhdxfile', 'latin1'));
  identifier.set(Buffer.from('Failkit', 'utf16le'), identifierBytes);
  const regions = regionTable(tableMebibytesCount);
  const guids = { fileWrite: randomUUID(), dataWrite: randomUUID() };
  return [
    { at: 0, bytes: identifier },
    ...headerOffsets.map((at, i) => ({ at, bytes: header(i + 1, guids) })),
    ...regionTableOffsets.map((at) => ({ at, bytes: regions })),
    { at: places.metadata * mebibyte, bytes: metadata(capacityBytes) },
  ];
}

function header(sequence: number, guids: { readonly fileWrite: string; readonly dataWrite: string }): Uint8Array {
  const bytes = new Uint8Array(headerBytes);
  const view = viewOf(bytes);
  bytes.set(Buffer.from('head', 'latin1'));
  view.setBigUint64(8, BigInt(sequence), true);
  putGuid(bytes, 16, guids.fileWrite);
  putGuid(bytes, 32, guids.dataWrite);
  view.setUint16(66, 1, true);
  view.setUint32(68, mebibyte, true);
  view.setBigUint64(72, BigInt(places.log * mebibyte), true);
  return summed(bytes);
}

function regionTable(tableMebibytesCount: number): Uint8Array {
  const bytes = new Uint8Array(regionTableBytes);
  const view = viewOf(bytes);
  bytes.set(Buffer.from('regi', 'latin1'));
  const regions = [
    { id: regionIds.blockTable, at: places.blockTable, length: tableMebibytesCount },
    { id: regionIds.metadata, at: places.metadata, length: 1 },
  ];
  view.setUint32(8, regions.length, true);
  for (const [i, { id, at, length }] of regions.entries()) {
    putGuid(bytes, 16 + 32 * i, id);
    view.setBigUint64(32 + 32 * i, BigInt(at * mebibyte), true);
    view.setUint32(40 + 32 * i, length * mebibyte, true);
    view.setUint32(44 + 32 * i, 1, true);
  }
  return summed(bytes);
}

function summed(bytes: Uint8Array): Uint8Array {
  viewOf(bytes).setUint32(4, crc32cWithout(bytes, 4), true);
  return bytes;
}

function metadata(capacityBytes: number): Uint8Array {
  const identity = new Uint8Array(16);
  putGuid(identity, 0, randomUUID());
  const ofDisk = 6;
  const items = [
    { id: metadataIds.fileParameters, flags: 4, bytes: numbers(blockBytes, 0) },
    {
      id: metadataIds.diskSize,
      flags: ofDisk,
      bytes: numbers(capacityBytes % 2 ** 32, Math.floor(capacityBytes / 2 ** 32)),
    },
    { id: metadataIds.page83, flags: ofDisk, bytes: identity },
    { id: metadataIds.logicalSector, flags: ofDisk, bytes: numbers(sectorBytes) },
    { id: metadataIds.physicalSector, flags: ofDisk, bytes: numbers(physicalSectorBytes) },
  ];
  const bytes = new Uint8Array(metadataTableBytes + 64);
  const view = viewOf(bytes);
  bytes.set(Buffer.from('metadata', 'latin1'));
  view.setUint16(10, items.length, true);
  let at = metadataTableBytes;
  for (const [i, item] of items.entries()) {
    const entry = 32 + 32 * i;
    putGuid(bytes, entry, item.id);
    view.setUint32(entry + 16, at, true);
    view.setUint32(entry + 20, item.bytes.length, true);
    view.setUint32(entry + 24, item.flags, true);
    bytes.set(item.bytes, at);
    at += item.bytes.length;
  }
  return bytes;
}

function numbers(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  for (const [i, value] of values.entries()) viewOf(bytes).setUint32(4 * i, value, true);
  return bytes;
}
