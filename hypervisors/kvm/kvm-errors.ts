/** What can go wrong with a machine of QEMU. Messages begin with the machine or its monitor, and say what, where, and what to do. */

/** Nobody answers at the monitor's socket. */
export class QmpUnreachable extends Error {
  readonly code = 'QMP_UNREACHABLE';
  override readonly name = 'QmpUnreachable';
}
/** QEMU refused a command. */
export class QmpRefused extends Error {
  readonly code = 'QMP_REFUSED';
  override readonly name = 'QmpRefused';
  /** QEMU's own class of the error, mostly `GenericError`. */
  readonly qemuClass: string;
  constructor(message: string, qemuClass: string) {
    super(message);
    this.qemuClass = qemuClass;
  }
}
/** The monitor closed, said what is no QMP, or was silent for too long. What was asked for may have happened. */
export class QmpLost extends Error {
  readonly code = 'QMP_LOST';
  override readonly name = 'QmpLost';
}
/** The snapshot ended before the run did: its contents can't be trusted any more. */
export class SnapshotLost extends Error {
  readonly code = 'SNAPSHOT_LOST';
  override readonly name = 'SnapshotLost';
}
/** No room is left for what the guest overwrites meanwhile. The guest goes on; the run does not. */
export class ScratchFull extends Error {
  readonly code = 'SCRATCH_FULL';
  override readonly name = 'ScratchFull';
}
/** Somebody else's job is at the machine's disks, or holds QEMU's NBD server. */
export class MachineBusy extends Error {
  readonly code = 'MACHINE_BUSY';
  override readonly name = 'MachineBusy';
}
