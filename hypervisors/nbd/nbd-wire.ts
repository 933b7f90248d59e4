/** The numbers of the NBD protocol and what a client sends. https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md */

export const greetingMagic = 0x4e42444d41474943n;
export const optionMagic = 0x49484156454f5054n;
export const optionReplyMagic = 0x3e889045565a9n;
export const simpleReplyMagic = 0x67446698;
export const structuredReplyMagic = 0x668e33ef;
export const requestMagic = 0x25609513;
export const requestHeaderBytes = 28;
/** NBD_MAX_STRING: what no name and no error text may exceed. */
export const stringBytesMax = 4096;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listContexts: 9,
  setContexts: 10,
};
export const optionReply = { ack: 1, server: 2, info: 3, context: 4, firstError: 0x8000_0000 };
export const optionError = {
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  tlsRequired: 0x8000_0005,
  unknown: 0x8000_0006,
  shutdown: 0x8000_0007,
  blockSizeRequired: 0x8000_0008,
  tooBig: 0x8000_0009,
};
export const info = { export: 0, name: 1, description: 2, blockSize: 3 };
export const greetingFlag = { fixedNewstyle: 1, noZeroes: 2 };
export const exportFlag = {
  hasFlags: 1,
  readOnly: 2,
  flush: 4,
  fua: 8,
  trim: 32,
  writeZeroes: 64,
  dontFragment: 128,
  multipleConnections: 256,
  cache: 1024,
  fastZero: 2048,
};

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
};
export const commandName = ['read', 'write', 'disconnect', 'flush', 'trim', 'cache', 'write zeroes', 'block status'];
export const commandFlag = { fua: 1, noHole: 2, dontFragment: 4, requestOne: 8, fastZero: 16 };
export const chunk = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5, firstError: 0x8000, errorOffset: 0x8002 };
export const chunkFlagDone = 1;

/** `base:allocation`. */
export const stateFlag = { hole: 1, zero: 2 };

const errnoNames: Readonly<Record<number, string>> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  22: 'EINVAL',
  28: 'ENOSPC',
  75: 'EOVERFLOW',
  95: 'ENOTSUP',
  108: 'ESHUTDOWN',
};

export function errnoName(errno: number): string {
  return errnoNames[errno] ?? `error ${errno}`;
}

/** What has no number in the protocol is an EIO. */
export function errnoOf(name: string): number {
  return Number(Object.entries(errnoNames).find(([, known]) => known === name)?.[0] ?? 5);
}

export interface Request {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

export function encodeRequest(request: Request, cookie: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(requestHeaderBytes);
  bytes.writeUInt32BE(requestMagic, 0);
  bytes.writeUInt16BE(request.flags, 4);
  bytes.writeUInt16BE(request.command, 6);
  bytes.writeUInt32BE(0, 8);
  bytes.writeUInt32BE(cookie, 12);
  bytes.writeUInt32BE(Math.floor(request.offset / 2 ** 32), 16);
  bytes.writeUInt32BE(request.offset % 2 ** 32, 20);
  bytes.writeUInt32BE(request.length, 24);
  return bytes;
}

export function encodeOption(number: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const header = Buffer.allocUnsafe(16);
  header.writeBigUInt64BE(optionMagic, 0);
  header.writeUInt32BE(number, 8);
  header.writeUInt32BE(
    parts.reduce((bytes, part) => bytes + part.length, 0),
    12,
  );
  return Buffer.concat([header, ...parts]);
}

/** A string as options carry it: its length in 32 bits, then its UTF-8. */
export function encodeString(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  return Buffer.concat([encodeUint32(bytes.length), bytes]);
}

export function encodeUint32(value: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function encodeUint16(value: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** Numbers above 2^53 lose precision here, and are refused wherever they matter. */
export function readUint64(bytes: DataView, at: number): number {
  return bytes.getUint32(at) * 2 ** 32 + bytes.getUint32(at + 4);
}
