/** A copy of a key on shared memory, for worker threads: whoever made it zeroes it for all of them. */
export function shareKey(key: Uint8Array): Uint8Array {
  const shared = new Uint8Array(new SharedArrayBuffer(key.length));
  shared.set(key);
  return shared;
}
