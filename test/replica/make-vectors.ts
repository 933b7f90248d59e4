import {
  constants,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
} from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeKeyContext } from '../../crypto/key-context.ts';
import { joined } from './damage.ts';
import { context, filled } from './specimens.ts';
import type { VectorCase } from './vector-case.ts';
import { cryptography, localWrap } from './vector-cases-crypto.ts';
import { controls, manifests, pages, segments } from './vector-cases-sealed.ts';
import { entries, keyRecords, repositories, trusts } from './vector-cases-signed.ts';
import { plain, vectorReaders } from './vector-readers.ts';

/** Writes fixtures/vectors/: `node test/replica/make-vectors.ts`. The same files come out every time. */

export const vectorsFolder = join(import.meta.dirname, '../../fixtures/vectors');
const recoveryName = 'recovery-key-wrap';

/** What a file says should come of reading: a value, or a named error. */
export type Outcome =
  | { readonly gives: unknown }
  | { readonly refused: { readonly code: string; readonly offset?: number } };

export async function outcomeOf({ kind, given }: Pick<VectorCase, 'kind' | 'given'>): Promise<Outcome> {
  try {
    return { gives: plain(await vectorReaders[kind](given)) };
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') throw error;
    const offset = 'offset' in error && typeof error.offset === 'number' ? { offset: error.offset } : {};
    return { refused: { code: error.code, ...offset } };
  }
}

const makers = [
  cryptography,
  localWrap,
  repositories,
  trusts,
  keyRecords,
  segments,
  pages,
  manifests,
  entries,
  controls,
  recoveryWrap,
];

/** Name and text of every file but the README. */
export async function vectorFiles(): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  for (const { name, about, section, kind, given } of makers.flatMap((make) => make())) {
    const outcome = await outcomeOf({ kind, given });
    if (name.includes('.broken-') !== 'refused' in outcome) throw new Error(`${name}: ${JSON.stringify(outcome)}`);
    if (files.has(`${name}.json`)) throw new Error(`two vectors named ${name}`);
    files.set(`${name}.json`, `${JSON.stringify({ about, section, kind, given, ...outcome }, null, 2)}\n`);
  }
  return files;
}

function recoveryWrap(): readonly VectorCase[] {
  const privateKey = recoveryPrivateKey();
  const wrapped = oaep(createPublicKey(privateKey), filled(32, 0x07), encodeKeyContext(context), filled(32, 0x5c));
  const ids = { repositoryId: '11'.repeat(16), machineId: '22'.repeat(16), epoch: 3 };
  const recoveryPrivateKeyHex = privateKey.export({ type: 'pkcs8', format: 'der' }).toString('hex');
  const given = { ...ids, recoveryPrivateKey: recoveryPrivateKeyHex, wrapped: wrapped.toString('hex') };
  const about =
    'A data key under the recovery key (RSA-OAEP, SHA-256, label: the key context). The private key is PKCS#8 in DER.';
  const good: VectorCase = { name: recoveryName, about, section: '5', kind: 'recovery-key-wrap', given };
  return [
    good,
    {
      ...good,
      name: `${recoveryName}.broken-machine`,
      about: 'The same wrap for another machine: another label.',
      given: { ...given, machineId: '99'.repeat(16) },
    },
  ];
}

/** Kept in the vector itself: an RSA key can't be made from a seed. */
function recoveryPrivateKey(): KeyObject {
  const file = join(vectorsFolder, `${recoveryName}.json`);
  if (!existsSync(file)) return generateKeyPairSync('rsa', { modulusLength: 3072 }).privateKey;
  const { given } = JSON.parse(readFileSync(file, 'utf8'));
  return createPrivateKey({ key: Buffer.from(given.recoveryPrivateKey, 'hex'), format: 'der', type: 'pkcs8' });
}

/** RSAES-OAEP (RFC 8017 section 7.1.1) with a given seed, for OpenSSL takes none. */
function oaep(key: KeyObject, message: Uint8Array, label: Uint8Array, seed: Uint8Array): Buffer {
  const size = (key.asymmetricKeyDetails?.modulusLength ?? 0) / 8;
  const labelHash = createHash('sha256').update(label).digest();
  const padding = filled(size - message.length - 2 * labelHash.length - 2, 0);
  const block = joined(labelHash, padding, [1], message);
  const maskedBlock = xor(block, mgf1(seed, block.length));
  const maskedSeed = xor(seed, mgf1(maskedBlock, seed.length));
  return publicEncrypt({ key, padding: constants.RSA_NO_PADDING }, joined([0], maskedSeed, maskedBlock));
}

function mgf1(seed: Uint8Array, length: number): Uint8Array {
  const parts = Array.from({ length: Math.ceil(length / 32) }, (_, i) =>
    createHash('sha256')
      .update(joined(seed, [0, 0, 0, i]))
      .digest(),
  );
  return joined(...parts).subarray(0, length);
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, i) => byte ^ (b[i] ?? 0));
}

async function writeAll(): Promise<void> {
  const files = await vectorFiles();
  mkdirSync(vectorsFolder, { recursive: true });
  for (const old of readdirSync(vectorsFolder))
    if (old.endsWith('.json') && !files.has(old)) rmSync(join(vectorsFolder, old));
  for (const [name, text] of files) writeFileSync(join(vectorsFolder, name), text);
  console.log(`${files.size} vectors in ${vectorsFolder}`);
}

if (import.meta.main) await writeAll();
