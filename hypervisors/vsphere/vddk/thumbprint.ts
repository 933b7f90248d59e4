import { createHash } from 'node:crypto';

/** Of a certificate in DER, as VDDK takes it: `AA:BB:…`. */
export function thumbprintOf(certificate: Uint8Array, hash: 'sha1' | 'sha256'): string {
  const hex = createHash(hash).update(certificate).digest('hex').toUpperCase();
  return (hex.match(/../g) ?? []).join(':');
}
