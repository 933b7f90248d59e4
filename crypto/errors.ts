/** What a refusal is called; callers that only need to know that it was one ask for KeyRefused. */
type KeyRefusal =
  | 'KEY_REFUSED'
  | 'KEY_DENIED'
  | 'KEY_DISABLED'
  | 'KEY_PENDING_DELETION'
  | 'KEY_NOT_FOUND'
  | 'KEY_WRONG'
  | 'KEY_WRAP_MISMATCH'
  | 'KEY_CLOCK_SKEWED';
/** The key's owner said no, in one of the ways below or in one that has no name. Never retried. */
export class KeyRefused extends Error {
  readonly code = 'KEY_REFUSED' as KeyRefusal;
  override readonly name: string = 'KeyRefused';
}
/** Credentials that are missing, expired or unknown, or that may not do this with this key. */
export class KeyDenied extends KeyRefused {
  override readonly code = 'KEY_DENIED';
  override readonly name = 'KeyDenied';
}
/** The key, or the version of it that is needed, is switched off. It can be switched on again. */
export class KeyDisabled extends KeyRefused {
  override readonly code = 'KEY_DISABLED';
  override readonly name = 'KeyDisabled';
}
/** The key is about to be destroyed, and with it whatever only it opens. */
export class KeyPendingDeletion extends KeyRefused {
  override readonly code = 'KEY_PENDING_DELETION';
  override readonly name = 'KeyPendingDeletion';
}
export class KeyNotFound extends KeyRefused {
  override readonly code = 'KEY_NOT_FOUND';
  override readonly name = 'KeyNotFound';
}
/** The wrap was made by another key than the one that is configured, or the key is of a kind that can't wrap. */
export class KeyWrong extends KeyRefused {
  override readonly code = 'KEY_WRONG';
  override readonly name = 'KeyWrong';
}
/** The wrap was altered, or made for another repository, machine or key epoch. */
export class KeyWrapMismatch extends KeyRefused {
  override readonly code = 'KEY_WRAP_MISMATCH';
  override readonly name = 'KeyWrapMismatch';
}
/** Refused because this host's clock is wrong. */
export class KeyClockSkewed extends KeyRefused {
  override readonly code = 'KEY_CLOCK_SKEWED';
  override readonly name = 'KeyClockSkewed';
}
type KeyServiceAway = 'KEY_SERVICE_UNAVAILABLE' | 'KEY_SERVICE_THROTTLED';
/** The key service gave no answer, or can't answer now (timeout, throttled, 5xx). Worth another try. */
export class KeyServiceUnavailable extends Error {
  readonly code = 'KEY_SERVICE_UNAVAILABLE' as KeyServiceAway;
  override readonly name: string = 'KeyServiceUnavailable';
}
/** The key service asks for fewer requests. */
export class KeyServiceThrottled extends KeyServiceUnavailable {
  override readonly code = 'KEY_SERVICE_THROTTLED';
  override readonly name = 'KeyServiceThrottled';
}
/** Who answers in the key service's place has no certificate that this host trusts. Nothing was sent. */
export class KeyServiceUntrusted extends Error {
  readonly code = 'KEY_SERVICE_UNTRUSTED';
  override readonly name = 'KeyServiceUntrusted';
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
