/** "What changed since?" can't be answered for sure; the disk must be resynced. The message is the reason shown to the operator. */
export class ChangeTrackingLost extends Error {
  readonly code = 'CHANGE_TRACKING_LOST';
  override readonly name = 'ChangeTrackingLost';
}
/** The disk changed while it was read and can't be frozen. */
export class SourceChanged extends Error {
  readonly code = 'SOURCE_CHANGED';
  override readonly name = 'SourceChanged';
}
/** The machine, disk or file does not exist or can't be opened. */
export class SourceNotFound extends Error {
  readonly code = 'SOURCE_NOT_FOUND';
  override readonly name = 'SourceNotFound';
}
/** A read failed, came up short, or the disk vanished. */
export class SourceUnreadable extends Error {
  readonly code = 'SOURCE_UNREADABLE';
  override readonly name = 'SourceUnreadable';
}
/** The policy requires a frozen guest, and the guest can't be frozen. */
export class QuiesceUnavailable extends Error {
  readonly code = 'QUIESCE_UNAVAILABLE';
  override readonly name = 'QuiesceUnavailable';
}
/** The snapshot holds only what changed since a reference point, and more was asked for: another snapshot is needed. */
export class SnapshotIncomplete extends Error {
  readonly code = 'SNAPSHOT_INCOMPLETE';
  override readonly name = 'SnapshotIncomplete';
}
