/** What can go wrong with Hyper-V. Messages begin with the host or the machine, and say what, where, and what to do. */

/** The worker on the host can't be started, or ended by itself. What was asked for may have happened. */
export class HypervUnreachable extends Error {
  readonly code = 'HYPERV_UNREACHABLE';
  override readonly name = 'HypervUnreachable';
}
/** The host's SSH key is not the pinned one. Nothing was sent. */
export class HypervUntrusted extends Error {
  readonly code = 'HYPERV_UNTRUSTED';
  override readonly name = 'HypervUntrusted';
}
/** No answer in time. What was asked for may have happened. */
export class HypervTimedOut extends Error {
  readonly code = 'HYPERV_TIMED_OUT';
  override readonly name = 'HypervTimedOut';
}
/** What the worker says can't be understood by this agent, or is larger than any answer may be. */
export class HypervAnswerInvalid extends Error {
  readonly code = 'HYPERV_ANSWER_INVALID';
  override readonly name = 'HypervAnswerInvalid';
}

/** What Hyper-V said when it refused, as numbers: its words are in the language of the host. */
export interface HypervDetail {
  /** `refused`: by a return value or a job; `not-found`: what was named is not there; `failed`: anything else. */
  readonly kind: 'refused' | 'not-found' | 'failed';
  /** Of the method, or of the job that it began. https://learn.microsoft.com/windows/win32/hyperv_v2/windows-virtualization-portal */
  readonly returnValue: number | null;
  /** As `0x80070005`. */
  readonly hresult: string | null;
}

export class HypervRefused extends Error {
  readonly code = 'HYPERV_REFUSED';
  override readonly name = 'HypervRefused';
  readonly detail: HypervDetail;
  constructor(message: string, detail: HypervDetail) {
    super(message);
    this.detail = detail;
  }
}
/** Somebody else is at the machine: another product's recovery checkpoint, a merge, a migration. */
export class HypervBusy extends Error {
  readonly code = 'HYPERV_BUSY';
  override readonly name = 'HypervBusy';
}
/** The machine runs on another node of the cluster, where alone it can be frozen. */
export class HypervElsewhere extends Error {
  readonly code = 'HYPERV_ELSEWHERE';
  override readonly name = 'HypervElsewhere';
}
/** Nothing of this machine can be had, whatever is asked. */
export class HypervMachineUnusable extends Error {
  readonly code = 'HYPERV_MACHINE_UNUSABLE';
  override readonly name = 'HypervMachineUnusable';
}
/** Checkpoints grow where the disks lie, and a volume that fills up stops every machine on it. */
export class HypervVolumeFull extends Error {
  readonly code = 'HYPERV_VOLUME_FULL';
  override readonly name = 'HypervVolumeFull';
}
/** A checkpoint of ours, or what it left in the disks, can't be removed now. No other one is taken before it is gone. */
export class HypervSnapshotStuck extends Error {
  readonly code = 'HYPERV_SNAPSHOT_STUCK';
  override readonly name = 'HypervSnapshotStuck';
}
/** Somebody removed our checkpoint, or wrote to its files, while they were read: what was read can't be trusted. */
export class HypervSnapshotGone extends Error {
  readonly code = 'HYPERV_SNAPSHOT_GONE';
  override readonly name = 'HypervSnapshotGone';
}
/** Where it is written down what belongs to us on the host can't be read or written. Nothing is asked of the host then. */
export class HypervJournalUnusable extends Error {
  readonly code = 'HYPERV_JOURNAL_UNUSABLE';
  override readonly name = 'HypervJournalUnusable';
}

/** By return value: 32774 is in use; 32775, and 5 of methods that a standard defines, a state that does not allow it now. */
export function isInTheWay(error: unknown): error is HypervRefused {
  return error instanceof HypervRefused && [5, 32_774, 32_775].includes(error.detail.returnValue ?? 0);
}

export function isNotFound(error: unknown): error is HypervRefused {
  return error instanceof HypervRefused && error.detail.kind === 'not-found';
}
