/** A file that bytes are read from at any position: one of this host, one with a log laid over it, or one that is reached by a network. */
export interface RandomAccessFile extends AsyncDisposable {
  /** For messages, and where a parent's path starts from. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Equal for two paths that lead to the same bytes. */
  readonly identity: string;
  /**
   * Fills every part exactly, or throws; never short. Whoever has several parts asks for them at once: they may be fetched together,
   * in any order. Nobody writes into them any more when it settles. Safe to call many times in parallel.
   */
  read(parts: readonly FilePart[], signal: AbortSignal): Promise<void>;
  /** A descriptor by which worker threads read this range by themselves; null where only `read` has the bytes. */
  directFd(offset: number, length: number): number | null;
}

export interface FilePart {
  readonly offset: number;
  readonly into: Uint8Array;
}

/** Null: there is no such file. */
export type OpenFile = (path: string, signal: AbortSignal) => Promise<RandomAccessFile | null>;

export async function readBytes(
  file: RandomAccessFile,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const into = new Uint8Array(length);
  await file.read([{ offset, into }], signal);
  return into;
}
