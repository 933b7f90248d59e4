/** Another failkit process works on this machine. */
export class StateBusy extends Error {
  readonly code = 'STATE_BUSY';
  override readonly name = 'StateBusy';
}
/** The disk with the state folder is full. */
export class StateDiskFull extends Error {
  readonly code = 'STATE_DISK_FULL';
  override readonly name = 'StateDiskFull';
}
/** The state folder can't be read or written, or is not ours. Losing it costs time, never data. */
export class StateUnusable extends Error {
  readonly code = 'STATE_UNUSABLE';
  override readonly name = 'StateUnusable';
}
