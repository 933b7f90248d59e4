/** What an NBD export is to those who serve one. */
export interface NbdExportHandler {
  /** As clients ask for it. */
  readonly name: string;
  /** For whoever lists the exports. */
  readonly description?: string;
  readonly capacityBytes: number;
  /** What requests work best at: a power of two, 512 to 32 MiB. */
  readonly preferredBlockBytes: number;
  /** Offsets and lengths are multiples of it, and so is the capacity: a power of two, up to 64 KiB. 1 unless given. */
  readonly minBlockBytes?: number;
  /**
   * Fills `into` exactly, or throws; called many times in parallel, never outside the capacity. A rejection fails this range only: with
   * the errno of an NbdRequestFailed, else with EIO. It settles soon after the signal is aborted: the client is gone.
   */
  read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Ascending and without gaps from `offset` on; it may stop short of `length` after the first one. Absent: allocation is not told. */
  extents?(offset: number, length: number, signal: AbortSignal): AsyncIterable<ServedExtent>;
  /** Absent: the export is read-only. */
  readonly writes?: NbdExportWrites;
}

export interface ServedExtent {
  readonly offset: number;
  readonly length: number;
  /** Reads as zero, and takes no space. */
  readonly zero: boolean;
}

/**
 * A resolved write is seen by every read after it, on every connection. Each may take as long as it needs: the client waits, and at most
 * a bounded number of bytes with it. What rejects here reaches the client as its errno.
 */
export interface NbdExportWrites {
  /** `bytes` is the caller's again when this settles. */
  write(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Reads back as zero afterwards. Unless `mayTrim`, the space must stay allocated. */
  writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayTrim: boolean },
    signal: AbortSignal,
  ): Promise<void>;
  /** A hint: what reads back there is not defined. */
  trim(offset: number, length: number, signal: AbortSignal): Promise<void>;
  /** Durable when it resolves: every write, zero and trim that had resolved before. */
  flush(signal: AbortSignal): Promise<void>;
  /** Whether zeroes always take less time than to write them as bytes. False: a client that insists on that is told no. */
  readonly zeroesAreFast: boolean;
}
