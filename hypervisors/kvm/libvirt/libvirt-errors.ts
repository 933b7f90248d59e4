/** What can go wrong with libvirt. Messages begin with the machine or the address, and say what, where, and what to do. */

/** virsh is not on this host. */
export class VirshMissing extends Error {
  readonly code = 'VIRSH_MISSING';
  override readonly name = 'VirshMissing';
}
/** Nobody answers at the address of libvirt, or it lets us not in. */
export class LibvirtUnreachable extends Error {
  readonly code = 'LIBVIRT_UNREACHABLE';
  override readonly name = 'LibvirtUnreachable';
}
/** libvirt answers, and refused this. Its own words are in the message. */
export class LibvirtRefused extends Error {
  readonly code = 'LIBVIRT_REFUSED';
  override readonly name = 'LibvirtRefused';
}
/** No answer in time. What was asked for may have happened. */
export class LibvirtTimedOut extends Error {
  readonly code = 'LIBVIRT_TIMED_OUT';
  override readonly name = 'LibvirtTimedOut';
}
/** What libvirt says can't be understood by this agent. */
export class LibvirtOutputInvalid extends Error {
  readonly code = 'LIBVIRT_OUTPUT_INVALID';
  override readonly name = 'LibvirtOutputInvalid';
}
/** libvirt takes snapshots of a machine that runs only. */
export class MachineNotRunning extends Error {
  readonly code = 'MACHINE_NOT_RUNNING';
  override readonly name = 'MachineNotRunning';
}
