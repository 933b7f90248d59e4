import { createHash } from 'node:crypto';

/** SHA-256 over `label` ‖ 0x00 ‖ the parts: equal bytes under two labels never give equal hashes. */
export function labelledSha256(label: string, ...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha256').update(`${label}\0`, 'ascii');
  for (const part of parts) hash.update(part);
  return hash.digest();
}
