/** What can go wrong with nbdkit and VMware's VDDK. Messages say what, where, and what to do; VDDK's own words come last. */

/** nbdkit is not on this host, has no VDDK plugin, or is too old. */
export class NbdkitMissing extends Error {
  readonly code = 'NBDKIT_MISSING';
  override readonly name = 'NbdkitMissing';
}
/** The folder that VDDK should be in is not there, or has no VDDK in it. */
export class VddkMissing extends Error {
  readonly code = 'VDDK_MISSING';
  override readonly name = 'VddkMissing';
}
/** There is a VDDK, and nbdkit can't use it: another version, or another architecture. */
export class VddkUnsuitable extends Error {
  readonly code = 'VDDK_UNSUITABLE';
  override readonly name = 'VddkUnsuitable';
}
/** VDDK offers none of the transports that the configuration allows. */
export class VddkTransportMissing extends Error {
  readonly code = 'VDDK_TRANSPORT_MISSING';
  override readonly name = 'VddkTransportMissing';
}
/** vSphere does not let VDDK in: user, password or privileges. */
export class VddkLoginRefused extends Error {
  readonly code = 'VDDK_LOGIN_REFUSED';
  override readonly name = 'VddkLoginRefused';
}
/** VDDK was told a thumbprint that is not the server's. */
export class VddkThumbprintRefused extends Error {
  readonly code = 'VDDK_THUMBPRINT_REFUSED';
  override readonly name = 'VddkThumbprintRefused';
}
/** The host that has the disk can't be reached from here, mostly at port 902. */
export class VddkHostUnreachable extends Error {
  readonly code = 'VDDK_HOST_UNREACHABLE';
  override readonly name = 'VddkHostUnreachable';
}
/** The disk can't be opened or read, for another reason. */
export class VddkFailed extends Error {
  readonly code = 'VDDK_FAILED';
  override readonly name = 'VddkFailed';
}
