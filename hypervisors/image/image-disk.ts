import type { FileHandle } from 'node:fs/promises';
import { ChangeTrackingLost, SourceUnreadable } from '../errors.ts';
import type { BlockSource, Extent, ReferencePoint } from '../hypervisor.ts';

/** Bounds what one extent makes the reader promise; a multiple of every block size. */
const extentBytesMax = 64 * 1024 * 1024;

interface OpenImage {
  readonly machine: string;
  readonly label: string;
  readonly path: string;
  readonly capacityBytes: number;
  /** Closed by whoever opened it; reads that are under way end first. */
  readonly handle: FileHandle;
}

/** Lists the whole capacity as data: Node can't ask a file for its holes (docs/decisions/0034). */
export function blockSourceOf(image: OpenImage): BlockSource {
  return {
    label: image.label,
    capacityBytes: image.capacityBytes,
    referencePoint: null,
    changedExtents: (since, signal) => allExtents(image, since, signal),
    read: (offset, into, signal) => readExactly(image, offset, into, signal),
    direct: {
      locate: async (offset, length) => [{ at: offset, length, fd: image.handle.fd, offset }],
      noteRead: () => undefined,
    },
    changesOnly: false,
  };
}

async function* allExtents(image: OpenImage, since: ReferencePoint, signal: AbortSignal): AsyncGenerator<Extent> {
  if (since !== null)
    throw new ChangeTrackingLost(
      `disk ${image.label} of machine ${image.machine} is an image, which tracks no changes`,
    );
  for (let offset = 0; offset < image.capacityBytes; offset += extentBytesMax) {
    signal.throwIfAborted();
    yield { offset, length: Math.min(extentBytesMax, image.capacityBytes - offset), zero: false };
  }
}

async function readExactly(image: OpenImage, offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
  if (offset < 0 || offset + into.length > image.capacityBytes)
    throw new RangeError(`read of ${into.length} bytes at ${offset} leaves the disk of ${image.capacityBytes} bytes`);
  let filled = 0;
  while (filled < into.length) {
    signal.throwIfAborted();
    const count = await readSome(image, offset + filled, into.subarray(filled));
    if (count === 0)
      throw unreadable(image, offset + filled, 'the file ended early: it was truncated while it was read');
    filled += count;
  }
}

async function readSome(image: OpenImage, offset: number, into: Uint8Array): Promise<number> {
  try {
    return (await image.handle.read(into, 0, into.length, offset)).bytesRead;
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw unreadable(image, offset, `the read failed (${code}): check the storage and the system log`, cause);
  }
}

function unreadable(image: OpenImage, offset: number, why: string, cause?: unknown): SourceUnreadable {
  return new SourceUnreadable(
    `disk ${image.label} of machine ${image.machine}: ${image.path} at byte ${offset}: ${why}`,
    { cause },
  );
}
