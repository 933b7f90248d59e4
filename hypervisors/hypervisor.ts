/** How far the guest was prepared for the snapshot. `inconsistent`: the source changed while it was read (policy allowed it). */
export type Consistency = 'crash-consistent' | 'application-consistent' | 'inconsistent';

export interface MachineRef {
  readonly name: string;
}

export interface Machine extends MachineRef {
  readonly disks: readonly { readonly label: string; readonly capacityBytes: number }[];
}

/** Opaque outside the hypervisor that made it. `null` from a source that tracks nothing: each run is a full listing. */
export type ReferencePoint = Uint8Array | null;

/** A byte run as the hypervisor reports it. `zero`: reads as zero, so it needs no read. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
}

export interface HypervisorConnection extends AsyncDisposable {
  listMachines(signal: AbortSignal): AsyncIterable<Machine>;
  /** Freezes every disk of the machine at one instant. Disposing removes the snapshot and waits until it is gone. */
  snapshot(machine: MachineRef, options: SnapshotOptions, signal: AbortSignal): Promise<MachineSnapshot>;
}

export interface SnapshotOptions {
  /** `require` fails the snapshot when the guest can't be frozen; `prefer` goes on crash-consistent. */
  readonly quiesce: 'off' | 'prefer' | 'require';
  /** What to do about a source that changes while it is read, where the source can't be frozen. */
  readonly whenChanging: 'refuse' | 'mark-inconsistent';
  /**
   * The reference points that `changedExtents` will be asked by, by label; a disk that is to be read in full is not in it. A hint where it
   * is missing, for sources that must know before the snapshot.
   */
  readonly since?: ReadonlyMap<string, ReferencePoint>;
}

export interface MachineSnapshot extends AsyncDisposable {
  readonly takenAt: Date;
  readonly disks: readonly BlockSource[];
  /** Disks of the machine that this snapshot leaves out, by label, with the reason: they make the point *partial*. */
  readonly excluded: readonly { readonly label: string; readonly reason: string }[];
  /** Machine configuration and firmware state (domain XML, UEFI variables, …), captured with the snapshot. */
  readonly attachments: readonly Attachment[];
  /** How long the guest stood still for the snapshot; null where nothing froze it. */
  readonly frozenMs: number | null;
  /** Call after the last read: throws SourceChanged, or says what was reached. Before that it is not known. */
  settleConsistency(signal: AbortSignal): Promise<Consistency>;
  /**
   * Call once the recovery point made from this snapshot is published, where the source wants to know: disposing then keeps what the
   * point's reference points stand for, and gives up that of earlier ones. Without the call, disposing keeps the earlier ones.
   */
  readonly notePublished?: () => void;
}

export interface Attachment {
  /** `[A-Za-z0-9._-]`, at most 100 characters, unique in the snapshot. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** One frozen disk. */
export interface BlockSource {
  /** Stable across runs for the same virtual disk: what the replica calls its label. */
  readonly label: string;
  readonly capacityBytes: number;
  /** Keep it only once the recovery point made from this snapshot is published. */
  readonly referencePoint: ReferencePoint;
  /**
   * Ascending, disjoint, inside the capacity. `since` null: a full listing; what it does not yield reads as zero.
   * Otherwise only what may have changed. Throws ChangeTrackingLost when the answer would be a guess.
   */
  changedExtents(since: ReferencePoint, signal: AbortSignal): AsyncIterable<Extent>;
  /** Fills `into` exactly, or throws; never short. Safe to call many times in parallel. */
  read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void>;
  /**
   * Where the disk's bytes are those of a file or device: worker threads then read it by themselves. Null where only `read` has the
   * bytes, or where its pace is to be kept; it may change from call to call.
   */
  readonly direct: DirectReads | null;
  /**
   * The snapshot holds nothing of the disk but what `changedExtents` yields for the reference point it was taken with: other reads and a
   * full listing fail with SnapshotIncomplete. Who needs more leaves the disk out of `since` at the next snapshot.
   */
  readonly changesOnly: boolean;
}

export interface DirectReads {
  /** Where the range's bytes lie, ascending and disjoint; what no piece covers reads as zero. Null: only `read` has them. */
  locate(offset: number, length: number, signal: AbortSignal): Promise<readonly FilePiece[] | null>;
  /** So much was read from there: for whoever watches. */
  noteRead(offset: number, bytes: number): void;
}

/** Bytes of a disk as they lie in a file, which stays open for as long as the disk. */
export interface FilePiece {
  /** On the disk. */
  readonly at: number;
  readonly length: number;
  readonly fd: number;
  /** In the file. */
  readonly offset: number;
}
