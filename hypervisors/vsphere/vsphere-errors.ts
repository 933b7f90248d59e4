/** What can go wrong with vSphere. Messages begin with the server or the machine, and say what, where, and what to do. */

/** Nobody answers at the address, or what answers is not vSphere's API. */
export class VsphereUnreachable extends Error {
  readonly code = 'VSPHERE_UNREACHABLE';
  override readonly name = 'VsphereUnreachable';
}
/** The server's certificate is not the pinned one, or no authority that we trust signed it. Nothing was sent. */
export class VsphereUntrusted extends Error {
  readonly code = 'VSPHERE_UNTRUSTED';
  override readonly name = 'VsphereUntrusted';
}
/** User or password are wrong, or the account is locked. */
export class VsphereLoginRefused extends Error {
  readonly code = 'VSPHERE_LOGIN_REFUSED';
  override readonly name = 'VsphereLoginRefused';
}
/** The account lacks a privilege, which the message names where vSphere does. */
export class VsphereDenied extends Error {
  readonly code = 'VSPHERE_DENIED';
  override readonly name = 'VsphereDenied';
}
/** No answer in time. What was asked for may have happened. */
export class VsphereTimedOut extends Error {
  readonly code = 'VSPHERE_TIMED_OUT';
  override readonly name = 'VsphereTimedOut';
}
/** What the server says can't be understood by this agent, or is larger than any answer may be. */
export class VsphereAnswerInvalid extends Error {
  readonly code = 'VSPHERE_ANSWER_INVALID';
  override readonly name = 'VsphereAnswerInvalid';
}
/** What was to be sent can't be written as XML. */
export class VsphereRequestInvalid extends Error {
  readonly code = 'VSPHERE_REQUEST_INVALID';
  override readonly name = 'VsphereRequestInvalid';
}

/** What a fault says besides its type, where it says it. */
export interface FaultDetail {
  /** The name of the fault's type in vim25, as `FileFault`. */
  readonly fault: string;
  /** vSphere's own words. */
  readonly words: string;
  /** Of `InvalidArgument` and its kin: which argument. */
  readonly invalidProperty: string | null;
  /** Of `FileFault` and its kin. */
  readonly file: string | null;
  /** Of `NoPermission`. */
  readonly privilege: string | null;
}

/** vSphere answered, and refused: by a fault of the call, or by a task that ended with one. */
export class VsphereRefused extends Error {
  readonly code = 'VSPHERE_REFUSED';
  override readonly name = 'VsphereRefused';
  readonly detail: FaultDetail;
  constructor(message: string, detail: FaultDetail) {
    super(message);
    this.detail = detail;
  }
}
/** Somebody else is at the machine: a task of another program, or a snapshot of ours that another run still needs. */
export class VsphereBusy extends Error {
  readonly code = 'VSPHERE_BUSY';
  override readonly name = 'VsphereBusy';
}
/** A snapshot of ours, or what it left in the disks, can't be removed now. No other one is taken before it is gone. */
export class VsphereSnapshotStuck extends Error {
  readonly code = 'VSPHERE_SNAPSHOT_STUCK';
  override readonly name = 'VsphereSnapshotStuck';
}

/** Faults that say the same as one in the list, by their type. */
export function isFault(error: unknown, ...types: readonly string[]): error is VsphereRefused {
  return error instanceof VsphereRefused && types.includes(error.detail.fault);
}

/** Nobody heard how it ended: what was asked for may have happened, or happens still. */
export function isUnheard(error: unknown): error is VsphereUnreachable | VsphereTimedOut {
  return error instanceof VsphereUnreachable || error instanceof VsphereTimedOut;
}

/** vSphere takes no snapshots of this machine, whatever is asked. */
export class MachineUnusable extends Error {
  readonly code = 'MACHINE_UNUSABLE';
  override readonly name = 'MachineUnusable';
}
/** Somebody removed our snapshot while it was read: what was read can't be trusted. */
export class VsphereSnapshotGone extends Error {
  readonly code = 'VSPHERE_SNAPSHOT_GONE';
  override readonly name = 'VsphereSnapshotGone';
}
/** Where a machine is to be restored to is not there, is not the only one of that name, or takes no machines. */
export class VspherePlaceInvalid extends Error {
  readonly code = 'VSPHERE_PLACE_INVALID';
  override readonly name = 'VspherePlaceInvalid';
}
/** There is a machine of that name, or files of one, where a machine is to be restored to. */
export class VsphereNameTaken extends Error {
  readonly code = 'VSPHERE_NAME_TAKEN';
  override readonly name = 'VsphereNameTaken';
}
/** What was captured of the machine's configuration can't be made a machine of. */
export class ConfigurationUnusable extends Error {
  readonly code = 'CONFIGURATION_UNUSABLE';
  override readonly name = 'ConfigurationUnusable';
}
/** A datastore of the machine has so little room left that no snapshot is taken: it would grow there. */
export class VsphereDatastoreFull extends Error {
  readonly code = 'VSPHERE_DATASTORE_FULL';
  override readonly name = 'VsphereDatastoreFull';
}
