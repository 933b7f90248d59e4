import type { FilePiece } from '../../hypervisors/hypervisor.ts';

/** Where a disk is restored to. Offsets and lengths in bytes. */
export interface RestoreSink extends AsyncDisposable {
  /** Shown to the operator. */
  readonly description: string;
  /** True when the whole sink reads as zero, so that free space needs no writing. */
  readonly startsZeroed: boolean;
  /** True when an earlier, interrupted restore of the same point may have left content worth comparing. */
  readonly mayHoldContent: boolean;
  /** Writes all bytes. Safe to call many times in parallel, never past the capacity. */
  write(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Fills `into` exactly. */
  read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Where it is a file or device: worker threads then write to it by themselves, what they have just opened. Null: only `write` does. */
  readonly direct: DirectWrites | null;
  /** Everything is durable, and stands under its final name. Without it, disposing leaves the partial result for a later try. */
  complete(signal: AbortSignal): Promise<void>;
}

/** Descriptors stay open until the sink is disposed. */
export interface DirectWrites {
  /** Makes room for the range, and says where its bytes go: ascending, without gaps. */
  place(offset: number, length: number, signal: AbortSignal): Promise<readonly FilePiece[]>;
  /** What the system's refusal of a write means. */
  refusal(error: Error): unknown;
  /** How far into the disk a write has come. Ranges come in the order of their segments, so less may be there. */
  noteWritten(end: number): void;
}
