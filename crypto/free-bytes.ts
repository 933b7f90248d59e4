/**
 * Gives a large buffer's memory back at once: garbage collection is late with memory outside its heap, by up to 64 MiB a thread.
 * Every view of the buffer is empty afterwards. Small ones are left alone: Node cuts them from a pool that others share.
 */
export function freeBytes({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength > freedBytesMin) buffer.transfer(0);
}

const freedBytesMin = 64 * 1024;
