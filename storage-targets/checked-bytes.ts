import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { ChecksumRefused } from './errors.ts';

/** Between two of them others get their turn. */
const pieceBytes = 2 ** 20;

/**
 * For stores that check another checksum than the SHA-256 that came with the bytes: both are taken of the same bytes here,
 * so that what the store then compares on arrival is what was sealed.
 */
export async function checkBytes(
  subject: string,
  bytes: Uint8Array,
  sha256: Uint8Array,
  take: (piece: Uint8Array) => void,
): Promise<void> {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    if (at > 0) await nextTurn();
    const piece = bytes.subarray(at, at + pieceBytes);
    hash.update(piece);
    take(piece);
  }
  if (Buffer.compare(hash.digest(), sha256) !== 0)
    throw new ChecksumRefused(`${subject}: the bytes to put do not have the SHA-256 that came with them`);
}

/** SHA-256 as it is kept among an object's metadata; null when it is none. */
export function recordedSha256(hex: string | undefined): Uint8Array | null {
  return hex !== undefined && /^[0-9a-f]{64}$/.test(hex) ? new Uint8Array(Buffer.from(hex, 'hex')) : null;
}
