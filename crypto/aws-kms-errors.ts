import {
  KeyClockSkewed,
  KeyDenied,
  KeyDisabled,
  KeyNotFound,
  KeyPendingDeletion,
  KeyRefused,
  KeyServiceThrottled,
  KeyServiceUnavailable,
  KeyServiceUntrusted,
  KeyWrapMismatch,
  KeyWrong,
} from './errors.ts';
import { isUntrustedCertificate } from './json-request.ts';

export type KmsCall = 'GenerateDataKey' | 'Encrypt' | 'Decrypt';

interface Asked {
  readonly call: KmsCall;
  readonly keyId: string;
  readonly region: string;
}

const credentialsAdvice = 'check the credentials, that they are not expired, and that the clock is right';

/** What KMS and STS call a no, by error name, and what the operator can do about it. Texts of AWS are never matched. */
const refusals: Readonly<Record<string, string>> = {
  AccessDeniedException: 'allow this call on this key to the agent in the key policy or in its IAM policy',
  AccessDenied: 'the role to assume does not trust these credentials, or they may not assume it',
  DisabledException: 'the key is disabled: enable it in KMS, or restore with the recovery key',
  KMSInvalidStateException:
    'the key is pending deletion or lacks its material: cancel the deletion at once, or restore with the recovery key',
  NotFoundException: 'no such key in this account and region: check key id and region',
  InvalidArnException: 'check the key id: it is no valid ARN',
  ValidationException: 'check the key id: KMS finds the request malformed',
  IncorrectKeyException: 'the wrap was made by another key: configure the key that the key record names',
  InvalidCiphertextException: 'the wrap was altered, or made for another repository, machine or key epoch',
  InvalidKeyUsageException: 'a symmetric key for encryption and decryption is needed',
  InvalidGrantTokenException: 'check the grants on the key',
  UnrecognizedClientException: credentialsAdvice,
  InvalidClientTokenId: credentialsAdvice,
  InvalidSignatureException: credentialsAdvice,
  SignatureDoesNotMatch: credentialsAdvice,
  IncompleteSignature: credentialsAdvice,
  IncompleteSignatureException: credentialsAdvice,
  MissingAuthenticationToken: credentialsAdvice,
  MissingAuthenticationTokenException: credentialsAdvice,
  ExpiredToken: credentialsAdvice,
  ExpiredTokenException: credentialsAdvice,
  CredentialsProviderError:
    'no usable AWS credentials were found: set them in the configuration, the environment, a profile or an instance role',
};

/** How each of them is called here; those that are not listed are about credentials. */
const kinds: Readonly<Record<string, typeof KeyRefused>> = {
  DisabledException: KeyDisabled,
  KMSInvalidStateException: KeyPendingDeletion,
  NotFoundException: KeyNotFound,
  InvalidArnException: KeyNotFound,
  ValidationException: KeyRefused,
  IncorrectKeyException: KeyWrong,
  InvalidKeyUsageException: KeyWrong,
  InvalidCiphertextException: KeyWrapMismatch,
};

const throttling: ReadonlySet<string> = new Set([
  'LimitExceededException',
  'RequestLimitExceeded',
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);

/** Answers with a 4xx status that still mean "later". */
const later: ReadonlySet<string> = new Set([
  'DependencyTimeoutException',
  'InternalFailure',
  'KeyUnavailableException',
  'KMSInternalException',
  'RequestLimitExceeded',
  'RequestTimeout',
  'RequestTimeoutException',
  'ServiceUnavailable',
  'ServiceUnavailableException',
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);

/** Names, as KeyRefused or KeyServiceUnavailable, what the SDK threw. */
export function errorFromKms(
  thrown: unknown,
  { call, keyId, region }: Asked,
): KeyRefused | KeyServiceUnavailable | KeyServiceUntrusted {
  const said = readSdkError(thrown);
  const cause = withoutRequest(said);
  const what = `${call} with key ${keyId} in ${region}`;
  const name = said.requestId === null ? said.name : `${said.name}, request ${said.requestId}`;
  const advice = refusals[said.name];
  if (said.clockIsOff && aboutCredentials(said.name))
    return new KeyClockSkewed(`AWS KMS refused ${what} (${name}): the clock of this host is wrong`, { cause });
  if (advice !== undefined)
    return new (kinds[said.name] ?? KeyDenied)(`AWS KMS refused ${what} (${name}): ${advice}`, { cause });
  if (isUntrustedCertificate(said.name))
    return new KeyServiceUntrusted(`who answers in the place of AWS KMS is not trusted, for ${what} (${name})`, {
      cause,
    });
  if (said.status === null)
    return new KeyServiceUnavailable(
      `AWS KMS can't be reached for ${what} (${name}): check endpoint, region, network, proxy and trusted certificates`,
      { cause },
    );
  if (said.status < 300)
    return new KeyServiceUnavailable(
      `AWS KMS answered ${what} with something that can't be read (${name}): check proxy and endpoint`,
    );
  if (isFinal(said.status) && !later.has(said.name))
    return new KeyRefused(
      `AWS KMS refused ${what} (${name}, HTTP ${said.status}): see the AWS documentation of this error`,
      { cause },
    );
  const Away = throttling.has(said.name) || said.status === 429 ? KeyServiceThrottled : KeyServiceUnavailable;
  return new Away(`AWS KMS can't do ${what} now (${name}, HTTP ${said.status})`, { cause });
}

/** With another clock they say the same of good credentials. */
function aboutCredentials(name: string): boolean {
  return refusals[name] === credentialsAdvice;
}

function isFinal(status: number): boolean {
  return status < 500 && status !== 408 && status !== 429;
}

interface SdkError {
  /** The network error's code where there is one: ECONNREFUSED says more than Error. */
  readonly name: string;
  readonly text: string;
  /** Null: KMS never answered. */
  readonly status: number | null;
  readonly requestId: string | null;
  /** The SDK compared its own clock with the answer's, and found the difference too large. */
  readonly clockIsOff: boolean;
}

/**
 * What may be kept as a cause. The SDK's own error drags request and answer along, signed headers included, and a
 * parser's error quotes what it could not parse: a logger that walks errors would print them.
 */
function withoutRequest({ name, text, status }: SdkError): Error {
  const unquoted = name === 'SyntaxError' ? 'the answer is not JSON' : text;
  return new Error(`${name}: ${unquoted}${status === null ? '' : ` (HTTP ${status})`}`);
}

function readSdkError(thrown: unknown): SdkError {
  if (!(thrown instanceof Error))
    return { name: 'unknown error', text: '', status: null, requestId: null, clockIsOff: false };
  const metadata = metadataOf(thrown);
  const status =
    'httpStatusCode' in metadata && typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : null;
  const requestId = 'requestId' in metadata && typeof metadata.requestId === 'string' ? metadata.requestId : null;
  const code = 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : null;
  return {
    name: status === null && code !== null ? code : thrown.name,
    text: thrown.message,
    status,
    requestId,
    clockIsOff: isClockOff(metadata),
  };
}

function metadataOf(thrown: Error): object {
  return '$metadata' in thrown && typeof thrown.$metadata === 'object' && thrown.$metadata !== null
    ? thrown.$metadata
    : {};
}

function isClockOff(metadata: object): boolean {
  return 'clockSkewCorrected' in metadata && metadata.clockSkewCorrected === true;
}
