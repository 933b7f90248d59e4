import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  verify,
} from 'node:crypto';
import { crc32c } from '../../storage-targets/crc32c.ts';
import { type DoubleAnswer, type HttpDouble, startDouble } from './http-double.ts';

/**
 * What Google documents of Cloud KMS's encrypt and decrypt, for want of a server: AES-256-GCM with additional authenticated data,
 * versions and their states, CRC-32C both ways, tokens that service accounts sign themselves, and roles per key.
 * cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys
 */

type State = 'ENABLED' | 'DISABLED' | 'DESTROY_SCHEDULED';

interface KeyVersion {
  readonly material: Buffer;
  state: State;
}

export interface CloudKms extends HttpDouble {
  createKey(): string;
  rotate(key: string): void;
  setState(key: string, state: State): void;
  /** The key file of a service account that may do these on every key. */
  serviceAccount(...may: ('encrypt' | 'decrypt')[]): string;
  /** Changes answers on their way back. */
  tamper: ((body: Record<string, unknown>) => void) | null;
}

interface Account {
  readonly publicPem: string;
  readonly may: readonly string[];
}

const scope = 'https://www.googleapis.com/auth/cloudkms';

export async function startCloudKms(): Promise<CloudKms> {
  const keys = new Map<string, KeyVersion[]>();
  const accounts = new Map<string, Account>();
  let tamper: CloudKms['tamper'] = null;
  const versionsOf = (key: string): KeyVersion[] => keys.get(key) ?? [];
  const double = await startDouble((request, body) => {
    const [, key = '', operation = ''] =
      /^\/v1\/(.+):(encrypt|decrypt)$/.exec(decodeURIComponent(request.url ?? '')) ?? [];
    const account = accountOf(request.headers.authorization, accounts);
    if (account === null) return refusal(401, 'UNAUTHENTICATED', 'Request had invalid authentication credentials.');
    if (!account.may.includes(operation))
      return refusal(403, 'PERMISSION_DENIED', `Permission 'cloudkms.cryptoKeyVersions.use' denied on '${key}'.`);
    if (!keys.has(key)) return refusal(404, 'NOT_FOUND', `CryptoKey ${key} not found.`);
    const answer = operation === 'encrypt' ? encrypt(key, versionsOf(key), body) : decrypt(key, versionsOf(key), body);
    if (answer.status === 200) tamper?.(answer.body as Record<string, unknown>);
    return answer;
  });
  return {
    ...double,
    createKey() {
      const key = `projects/berlin/locations/europe-west3/keyRings/failkit/cryptoKeys/k${keys.size}`;
      keys.set(key, [{ material: randomBytes(32), state: 'ENABLED' }]);
      return key;
    },
    rotate: (key) => void versionsOf(key).push({ material: randomBytes(32), state: 'ENABLED' }),
    setState(key, state) {
      for (const version of versionsOf(key)) version.state = state;
    },
    serviceAccount(...may) {
      const { publicKey, privateKey } = generateKeyPairSync('rsa', {
        modulusLength: 2048,
        publicKeyEncoding: { type: 'spki', format: 'pem' },
        privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      });
      const email = `account-${accounts.size}@berlin.iam.gserviceaccount.com`;
      accounts.set(email, { publicPem: publicKey, may });
      return JSON.stringify({
        type: 'service_account',
        client_email: email,
        private_key_id: 'one',
        private_key: privateKey,
      });
    },
    set tamper(change: CloudKms['tamper']) {
      tamper = change;
    },
    get tamper() {
      return tamper;
    },
  };
}

/** The account whose key signed the token, if it is still good and asked for the right scope. */
function accountOf(authorization: string | undefined, accounts: ReadonlyMap<string, Account>): Account | null {
  const [header = '', claims = '', signature = ''] = (authorization ?? '').replace(/^Bearer /, '').split('.');
  if (signature === '') return null;
  const { iss, exp, scope: asked } = JSON.parse(Buffer.from(claims, 'base64url').toString());
  const account = accounts.get(iss);
  if (account === undefined || asked !== scope || exp * 1000 < Date.now()) return null;
  const key = createPublicKey(account.publicPem);
  return verify('sha256', Buffer.from(`${header}.${claims}`), key, Buffer.from(signature, 'base64url'))
    ? account
    : null;
}

function encrypt(key: string, versions: readonly KeyVersion[], body: Readonly<Record<string, string>>): DoubleAnswer {
  const mismatch = checkCrcs(body, ['plaintext', 'additionalAuthenticatedData']);
  if (mismatch !== null) return mismatch;
  const number = versions.length;
  const version = versions[number - 1];
  if (version?.state !== 'ENABLED') return notEnabled(key, number, version?.state);
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', version.material, nonce, { authTagLength: 16 });
  cipher.setAAD(bytesOf(body.additionalAuthenticatedData));
  const sealed = [cipher.update(bytesOf(body.plaintext)), cipher.final(), cipher.getAuthTag()];
  const ciphertext = Buffer.concat([idOf(key), Buffer.from([number]), nonce, ...sealed]);
  return {
    status: 200,
    body: {
      name: `${key}/cryptoKeyVersions/${number}`,
      ciphertext: ciphertext.toString('base64'),
      ciphertextCrc32c: String(crc32c(ciphertext)),
      verifiedPlaintextCrc32c: 'plaintextCrc32c' in body,
      verifiedAdditionalAuthenticatedDataCrc32c: 'additionalAuthenticatedDataCrc32c' in body,
      protectionLevel: 'SOFTWARE',
    },
  };
}

function decrypt(key: string, versions: readonly KeyVersion[], body: Readonly<Record<string, string>>): DoubleAnswer {
  const mismatch = checkCrcs(body, ['ciphertext', 'additionalAuthenticatedData']);
  if (mismatch !== null) return mismatch;
  const failed = refusal(400, 'INVALID_ARGUMENT', 'Decryption failed: the ciphertext is invalid.');
  const ciphertext = bytesOf(body.ciphertext);
  if (ciphertext.length < 8 + 1 + 12 + 16 || !ciphertext.subarray(0, 8).equals(idOf(key))) return failed;
  const number = ciphertext[8] ?? 0;
  const version = versions[number - 1];
  if (version === undefined) return failed;
  if (version.state !== 'ENABLED') return notEnabled(key, number, version.state);
  const decipher = createDecipheriv('aes-256-gcm', version.material, ciphertext.subarray(9, 21), { authTagLength: 16 });
  decipher.setAAD(bytesOf(body.additionalAuthenticatedData));
  decipher.setAuthTag(ciphertext.subarray(-16));
  const plaintext = decipher.update(ciphertext.subarray(21, -16));
  try {
    decipher.final();
  } catch {
    return failed;
  }
  return {
    status: 200,
    body: {
      plaintext: plaintext.toString('base64'),
      plaintextCrc32c: String(crc32c(plaintext)),
      usedPrimary: number === versions.length,
    },
  };
}

function checkCrcs(body: Readonly<Record<string, string>>, names: readonly string[]): DoubleAnswer | null {
  const wrong = names.find((name) => {
    const crc = body[`${name}Crc32c`];
    return crc !== undefined && crc !== String(crc32c(bytesOf(body[name])));
  });
  return wrong === undefined
    ? null
    : refusal(400, 'INVALID_ARGUMENT', `The checksum in field ${wrong}_crc32c did not match.`);
}

function notEnabled(key: string, number: number, state: State | undefined): DoubleAnswer {
  const subject = `${key}/cryptoKeyVersions/${number}`;
  const type = state === 'DISABLED' ? 'KEY_DISABLED' : 'KEY_DESTROY_SCHEDULED';
  const details = [{ '@type': 'type.googleapis.com/google.rpc.PreconditionFailure', violations: [{ type, subject }] }];
  return refusal(400, 'FAILED_PRECONDITION', `${subject} is not enabled, current state is: ${state}.`, details);
}

function refusal(code: number, status: string, message: string, details: readonly object[] = []): DoubleAnswer {
  return { status: code, body: { error: { code, message, status, details } } };
}

function idOf(key: string): Buffer {
  return createHash('sha256').update(key).digest().subarray(0, 8);
}

function bytesOf(base64: string | undefined): Buffer {
  return Buffer.from(base64 ?? '', 'base64');
}
