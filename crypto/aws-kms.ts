import type { Agent as HttpsAgent } from 'node:https';
import {
  DecryptCommand,
  type DecryptCommandOutput,
  EncryptCommand,
  GenerateDataKeyCommand,
  KMSClient,
  type KMSClientConfig,
} from '@aws-sdk/client-kms';
import { fromNodeProviderChain, fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import { errorFromKms, type KmsCall } from './aws-kms-errors.ts';
import { DataKey, dataKeyBytes } from './data-key.ts';
import { KeyRefused, KeyServiceUnavailable } from './errors.ts';
import { awsEncryptionContext } from './key-context.ts';
import type { KeyProvider, WrappedKey } from './key-provider.ts';
import type { Secret } from './redacted.ts';

const provider = 'aws-kms';
const kmsTimeoutMsDefault = 10_000;

export interface AwsKmsOptions {
  /** Key id, key ARN, alias name or alias ARN of a symmetric encryption key. */
  readonly keyId: string;
  readonly region: string;
  /** A VPC endpoint, or a test server; absent: the region's public one. */
  readonly endpoint?: string;
  /** Absent: the SDK's own chain (environment, profile, web identity, container, instance). */
  readonly credentials?: {
    readonly accessKeyId: string;
    readonly secretAccessKey: Secret;
    readonly sessionToken?: Secret;
  };
  /** A profile of ~/.aws instead of the chain's default. */
  readonly profile?: string;
  /** Connections with a private CA or through a proxy; absent: the SDK's own. */
  readonly httpsAgent?: HttpsAgent;
  readonly assumeRole?: { readonly roleArn: string; readonly externalId?: string; readonly stsEndpoint?: string };
  /** Bound on one call, finding credentials included. */
  readonly timeoutMs?: number;
}

/**
 * AWS KMS: GenerateDataKey, Encrypt, Decrypt, one request each and never retried here (see with-key-retry.ts). Key and
 * encryption context are given in every call, so KMS itself refuses a wrap of another key or machine.
 */
export function awsKms(options: AwsKmsOptions): KeyProvider & Disposable {
  const client = new KMSClient(clientConfig(options));
  const { keyId: KeyId } = options;
  return {
    provider,
    keyId: KeyId,
    async generateDataKey(context, signal) {
      signal.throwIfAborted();
      const EncryptionContext = awsEncryptionContext(context);
      const command = new GenerateDataKeyCommand({ KeyId, KeySpec: 'AES_256', EncryptionContext });
      const ask = (abortSignal: AbortSignal) => client.send(command, { abortSignal });
      const answer = await answerOf('GenerateDataKey', options, signal, ask);
      // The wrap first: what takes the plaintext last never leaves a live key behind.
      const wrapped = wrappedKeyFrom(answer, 'GenerateDataKey', options);
      return { key: takePlaintext(answer, 'GenerateDataKey', options), wrapped };
    },
    async wrap(key, context, signal) {
      signal.throwIfAborted();
      const EncryptionContext = awsEncryptionContext(context);
      const command = new EncryptCommand({ KeyId, Plaintext: key.bytes, EncryptionContext });
      const ask = (abortSignal: AbortSignal) => client.send(command, { abortSignal });
      return wrappedKeyFrom(await answerOf('Encrypt', options, signal, ask), 'Encrypt', options);
    },
    async unwrap(wrapped, context, signal) {
      signal.throwIfAborted();
      const EncryptionContext = awsEncryptionContext(context);
      checkWrap(wrapped, options);
      // The configured key, not the one that the wrap names: whoever writes to the bucket must not choose the key.
      const command = new DecryptCommand({ KeyId, CiphertextBlob: wrapped.blob, EncryptionContext });
      const ask = (abortSignal: AbortSignal) => client.send(command, { abortSignal });
      return takePlaintext(await answerOf('Decrypt', options, signal, ask), 'Decrypt', options);
    },
    [Symbol.dispose]: () => client.destroy(),
  };
}

function clientConfig({
  region,
  endpoint,
  credentials,
  profile,
  httpsAgent,
  assumeRole,
}: AwsKmsOptions): KMSClientConfig {
  const given = credentials && {
    accessKeyId: credentials.accessKeyId,
    secretAccessKey: credentials.secretAccessKey.reveal(),
    ...(credentials.sessionToken && { sessionToken: credentials.sessionToken.reveal() }),
  };
  const own = given ?? (profile === undefined ? undefined : fromNodeProviderChain({ profile }));
  const temporary =
    assumeRole &&
    fromTemporaryCredentials({
      ...(own && { masterCredentials: own }),
      params: { RoleArn: assumeRole.roleArn, ...(assumeRole.externalId && { ExternalId: assumeRole.externalId }) },
      clientConfig: { region, maxAttempts: 1, ...(assumeRole.stsEndpoint && { endpoint: assumeRole.stsEndpoint }) },
    });
  const chosen = temporary ?? own;
  return {
    region,
    maxAttempts: 1,
    ...(endpoint && { endpoint }),
    ...(chosen && { credentials: chosen }),
    ...(httpsAgent && { requestHandler: { httpsAgent } }),
  };
}

/** What KMS answered, within the bound. Cancelled: throws the signal's reason. Else throws KeyRefused or KeyServiceUnavailable. */
async function answerOf<Answer extends object>(
  call: KmsCall,
  { keyId, region, timeoutMs = kmsTimeoutMsDefault }: AwsKmsOptions,
  signal: AbortSignal,
  ask: (deadline: AbortSignal) => Promise<Answer>,
): Promise<Answer> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const deadline = AbortSignal.any([signal, timeout]);
  const answer = ask(deadline);
  try {
    // The SDK heeds the signal only while it talks to KMS, not while it looks for credentials: so race it as well.
    return await Promise.race([answer, rejectedWhen(deadline)]);
  } catch (cause) {
    void answer.then(zeroPlaintext, () => undefined);
    if (signal.aborted) throw signal.reason;
    if (timeout.aborted)
      throw new KeyServiceUnavailable(`AWS KMS gave no answer to ${call} for key ${keyId} within ${timeoutMs} ms`, {
        cause: timeout.reason,
      });
    throw errorFromKms(cause, { call, keyId, region });
  }
}

function rejectedWhen(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** Moves the plaintext into a DataKey and zeroes the SDK's own buffer. The SDK's JSON text stays until collected. */
function takePlaintext(
  answer: Pick<DecryptCommandOutput, 'Plaintext'>,
  call: KmsCall,
  { keyId }: AwsKmsOptions,
): DataKey {
  const plaintext = answer.Plaintext;
  if (plaintext === undefined)
    throw new KeyServiceUnavailable(`AWS KMS answered ${call} for key ${keyId} without a plaintext`);
  try {
    if (plaintext.length === dataKeyBytes) return new DataKey(new Uint8Array(plaintext));
    throw new KeyRefused(
      `what AWS KMS unwrapped with key ${keyId} has ${plaintext.length} bytes, not ${dataKeyBytes}: it is no data key`,
    );
  } finally {
    plaintext.fill(0);
  }
}

/** For an answer that comes after its caller has gone. */
function zeroPlaintext(answer: object): void {
  if ('Plaintext' in answer && answer.Plaintext instanceof Uint8Array) answer.Plaintext.fill(0);
}

function wrappedKeyFrom(
  answer: { readonly KeyId?: string | undefined; readonly CiphertextBlob?: Uint8Array | undefined },
  call: KmsCall,
  { keyId }: AwsKmsOptions,
): WrappedKey {
  const { KeyId, CiphertextBlob: blob } = answer;
  if (!KeyId || !blob?.length)
    throw new KeyServiceUnavailable(
      `AWS KMS answered ${call} for key ${keyId} without a key id or without a ciphertext`,
    );
  return { provider, keyId: KeyId, blob };
}

function checkWrap({ provider: given, keyId: wrappedBy, blob }: WrappedKey, { keyId }: AwsKmsOptions): void {
  if (given !== provider) throw new KeyRefused(`AWS KMS can't unwrap what ${given} wrapped: use the ${given} provider`);
  if (blob.length === 0)
    throw new KeyRefused(`the wrap of ${wrappedBy} is empty, so key ${keyId} has nothing to unwrap: it was altered`);
}
