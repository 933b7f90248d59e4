/** The key's owner said no: wrong key or context, no permission, disabled, pending deletion, altered wrap. Never retried. */
export class KeyRefused extends Error {
  readonly code = 'KEY_REFUSED';
  override readonly name = 'KeyRefused';
}
/** The key service gave no answer, or can't answer now (timeout, throttled, 5xx). Worth another try. */
export class KeyServiceUnavailable extends Error {
  readonly code = 'KEY_SERVICE_UNAVAILABLE';
  override readonly name = 'KeyServiceUnavailable';
}
/** A key file that is missing, malformed, or readable by others. */
export class KeyFileUnusable extends Error {
  readonly code = 'KEY_FILE_UNUSABLE';
  override readonly name = 'KeyFileUnusable';
}
/** The key does not belong to this ciphertext's header: wrong key, or the header was altered or swapped. */
export class CommitmentMismatch extends Error {
  readonly code = 'COMMITMENT_MISMATCH';
  override readonly name = 'CommitmentMismatch';
}
/** A sealed record failed its tag: altered, moved to another slot, block, disk, or cut short. */
export class RecordTampered extends Error {
  readonly code = 'RECORD_TAMPERED';
  override readonly name = 'RecordTampered';
}
/** A signature that does not verify, or whose algorithm is unknown. */
export class SignatureInvalid extends Error {
  readonly code = 'SIGNATURE_INVALID';
  override readonly name = 'SignatureInvalid';
}
