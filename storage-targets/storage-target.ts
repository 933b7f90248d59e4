/**
 * One customer bucket (or directory), seen as a flat set of immutable objects. Nothing is ever overwritten,
 * renamed or appended to; the only ordering primitive is *create this name if it does not exist*.
 *
 * Names are `[a-z0-9/._-]`, at most 512 bytes, relative to the configured prefix; no part between slashes is empty, `.`,
 * `..` or longer than 255 bytes (NameInvalid). No name is another's folder: `a` and `a/b` never both exist.
 * Every method rejects with one of the errors of `storage-targets/errors.ts`, or with `signal.reason` untouched when cancelled.
 */
export interface StorageTarget extends AsyncDisposable {
  /** What the operator calls this target, e.g. `s3://bucket/prefix` or a directory. Holds no secret. */
  readonly description: string;

  /**
   * Whole or not at all, and durable once resolved, its name included. Of any number of racing puts of one name, exactly
   * one resolves. Throws ObjectExists if the name is taken (by anybody, with any bytes). After StoreUnavailable the
   * outcome is unknown; `with-retry.ts` resolves it by reading back. `bytes` must not change until this settles.
   */
  putIfAbsent(name: string, bytes: Uint8Array, options: PutOptions, signal: AbortSignal): Promise<void>;

  /**
   * Exactly the bytes asked for, or an error: never short. `null` reads the whole object. Throws ObjectNotFound, or
   * RangeInvalid when the object ends before the range does, or a whole one exceeds `wholeObjectBytesMax`.
   */
  get(name: string, range: ByteRange | null, signal: AbortSignal, options?: GetOptions): Promise<Uint8Array>;

  /** Throws ObjectNotFound. */
  head(name: string, signal: AbortSignal): Promise<ObjectInfo>;

  /**
   * Ascending by name (code-unit order), strongly consistent: what was put before the call is seen. `prefix` is a plain
   * string prefix, and may end inside a part. An object that comes or goes during the walk may be seen or not.
   */
  list(prefix: string, options: ListOptions, signal: AbortSignal): AsyncIterable<ListedObject>;

  /** Removes every version of each, or throws Immutable. A missing name is fine. */
  delete(names: readonly string[], signal: AbortSignal): Promise<void>;

  /** Only ever lengthens. Throws Unsupported where the store has no object lock. */
  extendRetention(name: string, until: Date, signal: AbortSignal): Promise<void>;

  /** The store's own clock, as precisely as it tells (a second for HTTP). Costs one request at most. */
  now(signal: AbortSignal): Promise<Date>;
}

/** `length` bytes from `offset`; both are non-negative safe integers, `length` > 0. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface PutOptions {
  /** SHA-256 of the bytes, 32 bytes. Checked before the object exists (ChecksumRefused) and recorded, where the store can. */
  readonly sha256: Uint8Array;
  /** Object lock until then, where the store has one; throws Unsupported elsewhere, and nothing is put. */
  readonly retainUntil?: Date;
  readonly pace?: Pace;
}

export interface GetOptions {
  readonly pace?: Pace;
  /**
   * Where the bytes of a range go, as long as the range; it is what the get resolves with. Nothing is written there once it has ended.
   * Memory that goes round: to take fresh pages for everything that is read costs more than receiving it.
   */
  readonly into?: Uint8Array;
}

/**
 * Asked for every byte of a body, piece by piece: how many of the next `most` may travel, from one to all of them. A put
 * asks before it sends them; a get asks before it takes more from the connection than it was granted, or a buffer beyond
 * that. Rejects only when the transfer is cancelled, with `signal.reason`. The wait for it counts towards no time limit.
 */
export type Pace = (most: number) => number | Promise<number>;

export interface ListedObject {
  readonly name: string;
  readonly bytes: number;
  readonly modified: Date;
}

export interface ObjectInfo extends ListedObject {
  /** The SHA-256 that the store recorded at upload, 32 bytes; null where it keeps none. It proves what was put, not what is there now. */
  readonly sha256: Uint8Array | null;
}

export interface ListOptions {
  /** Only names greater than this one. */
  readonly startAfter?: string;
  /** Stop after so many; also bounds the request to the store. */
  readonly limit?: number;
}

/** More than any object of ours; a store cannot make a reader take more memory than this at once. */
export const wholeObjectBytesMax = 256 * 1024 * 1024;
