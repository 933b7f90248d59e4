/** What can go wrong with an NBD server. Messages begin with the server's address, and say what, where, and what to do. */

/** Not an NBD URI, or one that asks for something this client can't do. */
export class NbdUriInvalid extends Error {
  readonly code = 'NBD_URI_INVALID';
  override readonly name = 'NbdUriInvalid';
}
/** Nobody answers at the address. */
export class NbdUnreachable extends Error {
  readonly code = 'NBD_UNREACHABLE';
  override readonly name = 'NbdUnreachable';
}
/** TLS was asked for, and the server has none, or one side does not trust the other. Nothing was sent in plain. */
export class NbdTlsUntrusted extends Error {
  readonly code = 'NBD_TLS_UNTRUSTED';
  override readonly name = 'NbdTlsUntrusted';
}
/** The server does not hand out that export: it does not exist, or its policy forbids it. */
export class NbdExportRefused extends Error {
  readonly code = 'NBD_EXPORT_REFUSED';
  override readonly name = 'NbdExportRefused';
}
/** The server or the export lacks something that was asked for: a meta context, writing, the fixed newstyle handshake. */
export class NbdUnsupported extends Error {
  readonly code = 'NBD_UNSUPPORTED';
  override readonly name = 'NbdUnsupported';
}
/** The connection ended. Every request that was pending failed with this; whether a write took place is unknown. */
export class NbdConnectionLost extends Error {
  readonly code = 'NBD_CONNECTION_LOST';
  override readonly name = 'NbdConnectionLost';
}
/** The server answered nothing for too long. The connection is closed. */
export class NbdTimedOut extends Error {
  readonly code = 'NBD_TIMED_OUT';
  override readonly name = 'NbdTimedOut';
}
/** The server says that one request failed. The connection goes on. */
export class NbdRequestFailed extends Error {
  readonly code = 'NBD_REQUEST_FAILED';
  override readonly name = 'NbdRequestFailed';
  /** The protocol's name of the error, as `EIO`. */
  readonly errno: string;
  constructor(message: string, errno: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.errno = errno;
  }
}
/** The server sent what the protocol forbids, so nothing it says can be trusted. The connection is closed. */
export class NbdProtocolViolation extends Error {
  readonly code = 'NBD_PROTOCOL_VIOLATION';
  override readonly name = 'NbdProtocolViolation';
}
