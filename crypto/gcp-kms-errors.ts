import {
  KeyClockSkewed,
  KeyDenied,
  KeyDisabled,
  KeyNotFound,
  KeyPendingDeletion,
  KeyRefused,
  KeyServiceThrottled,
  KeyServiceUnavailable,
  KeyWrapMismatch,
} from './errors.ts';
import { clockIsOff, type JsonAnswer, member, saidBy, textMember } from './json-request.ts';

/** Names an answer of Google Cloud KMS by its status and details: cloud.google.com/apis/design/errors */
export function errorFromGcpKms(
  { status, headers, json }: JsonAnswer,
  operation: 'encrypt' | 'decrypt',
  what: string,
): KeyRefused | KeyServiceUnavailable {
  const error = member(json, 'error');
  const reason = textMember(error, 'status') || `HTTP ${status}`;
  const said = `Google Cloud KMS refused ${what} (${reason})${saidBy(textMember(error, 'message'))}`;
  if (status === 401 && clockIsOff(headers))
    return new KeyClockSkewed(`${said}. This host's clock is wrong; Google's says ${headers.date}`);
  if (reason === 'FAILED_PRECONDITION') return preconditionError(error, said);
  if (status === 401 || status === 403)
    return new KeyDenied(`${said}. Check the credentials, and their role on the key: docs/operations/gcp-kms.md`);
  if (status === 404) return new KeyNotFound(`${said}. Check keys.key: project, location, key ring and key`);
  if (status === 429) return new KeyServiceThrottled(`${said}. It asks for fewer requests`);
  if (status >= 500 || status === 408)
    return new KeyServiceUnavailable(`Google Cloud KMS can't do ${what} now (${reason})`);
  if (status === 400 && operation === 'decrypt')
    return new KeyWrapMismatch(
      `${said}. The wrap was altered, or made by another key or for another repository, machine or key epoch`,
    );
  return new KeyRefused(`${said}. The key has to be a symmetric one, for encryption and decryption`);
}

/** A version of the key that is not enabled says so in a violation of its precondition, `KEY_DISABLED` and the like. */
function preconditionError(error: unknown, said: string): KeyRefused {
  const details = member(error, 'details');
  const violations = (Array.isArray(details) ? details : []).flatMap((detail) => member(detail, 'violations') ?? []);
  const types = violations.map((violation) => textMember(violation, 'type'));
  if (types.some((type) => type.startsWith('KEY_DESTROY')))
    return new KeyPendingDeletion(`${said}. Restore the key version at once if it is only scheduled for destruction`);
  return new KeyDisabled(`${said}. Enable the key version, or restore it if it is scheduled for destruction`);
}
