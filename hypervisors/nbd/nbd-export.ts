import { NbdProtocolViolation } from './nbd-errors.ts';
import { exportFlag } from './nbd-wire.ts';

/** What a request may be. Offsets and lengths are multiples of `min`. */
export interface NbdBlockSizes {
  readonly min: number;
  readonly preferred: number;
  /** Of the payload of one request. */
  readonly max: number;
}

/** An export as the server described it. */
export interface NbdExport {
  readonly capacityBytes: number;
  readonly blocks: NbdBlockSizes;
  readonly can: {
    readonly write: boolean;
    readonly flush: boolean;
    readonly fua: boolean;
    readonly trim: boolean;
    readonly writeZeroes: boolean;
    /** Several connections see one coherent disk. */
    readonly multipleConnections: boolean;
  };
  /** Meta contexts that the server granted, by its number. */
  readonly contexts: ReadonlyMap<number, string>;
  readonly structured: boolean;
}

const minBlockBytesMax = 64 * 1024;
const noLimit = 0xffff_ffff;
/** The most this client asks for at once, and what the protocol lets a client assume. */
const requestBytesMax = 32 * 1024 * 1024;

/** NBD_INFO_EXPORT: size and flags. */
export function parseExportInfo(where: string, data: Buffer): Pick<NbdExport, 'capacityBytes' | 'can'> {
  if (data.length !== 12) throw violation(where, `the export's size in ${data.length} bytes, not 12`);
  const capacityBytes = Number(data.readBigUInt64BE(2));
  if (capacityBytes > Number.MAX_SAFE_INTEGER) throw violation(where, `an export of ${data.readBigUInt64BE(2)} bytes`);
  const flags = data.readUInt16BE(10);
  const has = (flag: number) => (flags & flag) !== 0;
  if (!has(exportFlag.hasFlags)) throw violation(where, `export flags 0x${flags.toString(16)}, which deny being flags`);
  const write = !has(exportFlag.readOnly);
  return {
    capacityBytes,
    can: {
      write,
      flush: has(exportFlag.flush),
      fua: has(exportFlag.fua),
      trim: write && has(exportFlag.trim),
      writeZeroes: write && has(exportFlag.writeZeroes),
      multipleConnections: has(exportFlag.multipleConnections),
    },
  };
}

/** NBD_INFO_BLOCK_SIZE; null: the server sent none, and the protocol's defaults hold. */
export function parseBlockSizes(where: string, data: Buffer | null): NbdBlockSizes {
  if (data === null) return { min: 1, preferred: 4096, max: requestBytesMax };
  if (data.length !== 14) throw violation(where, `block sizes in ${data.length} bytes, not 14`);
  const [min, preferred, max] = [data.readUInt32BE(2), data.readUInt32BE(6), data.readUInt32BE(10)];
  const ordered = isPowerOfTwo(min) && min <= minBlockBytesMax && isPowerOfTwo(preferred) && preferred >= min;
  if (!ordered || max < min || (max !== noLimit && max % min !== 0))
    throw violation(where, `block sizes that can't be: minimum ${min}, preferred ${preferred}, maximum ${max}`);
  return { min, preferred, max: Math.min(max === noLimit ? requestBytesMax : max, requestBytesMax) };
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

function violation(where: string, what: string): NbdProtocolViolation {
  return new NbdProtocolViolation(`${where}: the server breaks the protocol in the handshake: ${what}`);
}
