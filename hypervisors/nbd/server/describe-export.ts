import { encodeUint16, encodeUint32, exportFlag, info } from '../nbd-wire.ts';
import type { NbdExportHandler } from './nbd-export-handler.ts';

/** Of one request's payload, and what a client may assume where it was told nothing. */
export const requestBytesMax = 32 * 1024 * 1024;

/** Two connections always see one disk: handlers promise it. */
export function flagsOf({ writes }: NbdExportHandler): number {
  const always = exportFlag.hasFlags | exportFlag.dontFragment | exportFlag.multipleConnections;
  if (writes === undefined) return always | exportFlag.readOnly;
  const writing = exportFlag.flush | exportFlag.fua | exportFlag.trim | exportFlag.writeZeroes;
  return always | writing | (writes.zeroesAreFast ? exportFlag.fastZero : 0);
}

export function encodeSize({ capacityBytes }: NbdExportHandler): Uint8Array {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt(capacityBytes));
  return bytes;
}

/** The payloads of the replies to NBD_OPT_INFO and NBD_OPT_GO; what was not asked for is said where it matters. */
export function describeExport(handler: NbdExportHandler, asked: ReadonlySet<number>): readonly Uint8Array[] {
  const { name, description, preferredBlockBytes, minBlockBytes = 1 } = handler;
  const size = [encodeUint16(info.export), encodeSize(handler), encodeUint16(flagsOf(handler))];
  const sizes = [minBlockBytes, preferredBlockBytes, requestBytesMax].map(encodeUint32);
  const described: Uint8Array[] = [Buffer.concat(size), Buffer.concat([encodeUint16(info.blockSize), ...sizes])];
  if (asked.has(info.name)) described.push(Buffer.concat([encodeUint16(info.name), Buffer.from(name)]));
  if (asked.has(info.description) && description !== undefined)
    described.push(Buffer.concat([encodeUint16(info.description), Buffer.from(description)]));
  return described;
}
