import { SignatureInvalid } from '../crypto/errors.ts';
import type { KeyContext } from '../crypto/key-provider.ts';
import { keyIdOf } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import { ObjectNotFound } from '../storage-targets/errors.ts';
import { ChainBroken } from './chain.ts';
import { type Damage, damageOf, isDamage } from './damage.ts';
import { sameBytes } from './encoding.ts';
import { checkKeyRecordSigner, type KeyRecord, parseKeyRecord } from './key-record.ts';
import { keyRecordName, keyRecordPrefix } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { AgentNotTrusted, type AgentTrust } from './trust.ts';

/** Which of an epoch's key records count: docs/format.md §5. */

/** The key records that count, the highest revision first and revision 0 last: docs/format.md §5. */
export async function readKeyRecords(
  repo: OpenRepository,
  context: KeyContext,
  firstDigest: Uint8Array | null,
  signal: AbortSignal,
): Promise<readonly KeyRecord[]> {
  const revisions = await listRevisions(repo, context, signal);
  const first = await readRevision(repo, context, 0, signal);
  checkFirstRevision(first, firstDigest);
  const counting: KeyRecord[] = [];
  for (const revision of revisions.filter((candidate) => candidate > 0)) {
    const record = await readIfIntact(repo, context, revision, signal);
    if (record !== null && counts(repo, first, record)) counting.unshift(record);
  }
  return [...counting, first];
}

/** What can be used of an epoch's records when the chain or revision 0 is damaged: every revision that an agent of ours signed. */
export async function salvageKeyRecords(
  repo: OpenRepository,
  context: KeyContext,
  firstDigest: Uint8Array | null,
  signal: AbortSignal,
): Promise<readonly KeyRecord[]> {
  try {
    if (firstDigest !== null) return await readKeyRecords(repo, context, firstDigest, signal);
  } catch (error) {
    if (!isDamage(error)) throw error;
  }
  const records: KeyRecord[] = [];
  for (const revision of await listRevisions(repo, context, signal)) {
    const record = await readIfIntact(repo, context, revision, signal);
    if (record !== null && signerOf(repo, record) !== null) records.unshift(record);
  }
  if (records.length > 0) return records;
  throw new ChainBroken(
    `no key record of epoch ${context.epoch} under ${keyRecordPrefix(context.machineId, context.epoch)} is intact: what was sealed under it can't be opened`,
  );
}

export interface KeyRecordCheck {
  readonly records: number;
  readonly readBytes: number;
  /** `isFirst`: revision 0, without which the epoch is lost. */
  readonly damage: readonly (Damage & { readonly isFirst: boolean })[];
}

/** Reads every revision of an epoch's key record, and goes on past those that are damaged. Opens none, so it needs no key. */
export async function checkKeyRecords(
  repo: OpenRepository,
  context: KeyContext,
  firstDigest: Uint8Array,
  signal: AbortSignal,
): Promise<KeyRecordCheck> {
  const found = await listRevisions(repo, context, signal);
  const damage: (Damage & { readonly isFirst: boolean })[] = [];
  let first: KeyRecord | null = null;
  let readBytes = 0;
  // A revision is written when the ones before it stand: of a gap, the first number is looked for.
  const gap = found.findIndex((revision, i) => revision !== i);
  const revisions = [...new Set([0, ...(gap > 0 ? [gap] : []), ...found])].sort((a, b) => a - b);
  for (const revision of revisions) {
    try {
      const record = await readRevision(repo, context, revision, signal);
      readBytes += record.bytes.length;
      if (revision === 0) checkFirstRevision(record, firstDigest);
      else checkLaterRevision(repo, first, record);
      first ??= revision === 0 ? record : null;
    } catch (error) {
      const name = keyRecordName(context.machineId, context.epoch, revision);
      damage.push({ ...damageOf(name, error), isFirst: revision === 0 });
    }
  }
  return { records: revisions.length, readBytes, damage };
}

function checkLaterRevision(repo: OpenRepository, first: KeyRecord | null, record: KeyRecord): void {
  const agent = repo.trust.agents.find(({ key }) => sameBytes(keyIdOf(key), record.signerKeyId));
  const name = keyRecordName(record.context.machineId, record.context.epoch, record.revision);
  if (agent === undefined)
    throw new AgentNotTrusted(`${name} is signed by an agent that the root key has not certified`);
  checkKeyRecordSigner(record, agent.key);
  if (first === null || sameBytes(first.commitment, record.commitment)) return;
  throw new ChainBroken(`${name} is for another data key than revision 0`);
}

/** Throws ChainBroken where revision 0 is not the record that the chain names. */
function checkFirstRevision(first: KeyRecord, digest: Uint8Array | null): void {
  if (digest !== null && sameBytes(sha256(first.bytes), digest)) return;
  const { machineId, epoch } = first.context;
  throw new ChainBroken(
    `${keyRecordName(machineId, epoch, 0)} is not the key record that the chain names: it was replaced`,
  );
}

/** A later revision counts if an agent that is certified now signed it, and for the same data key. */
function counts(repo: OpenRepository, first: KeyRecord, record: KeyRecord): boolean {
  const signer = signerOf(repo, record);
  return signer !== null && signer.revoked === null && sameBytes(first.commitment, record.commitment);
}

/** The agent that signed it; null where that is none of ours, or the signature is not valid. */
function signerOf(repo: OpenRepository, record: KeyRecord): AgentTrust | null {
  const agent = repo.trust.agents.find(({ key }) => sameBytes(keyIdOf(key), record.signerKeyId));
  if (agent === undefined) return null;
  try {
    checkKeyRecordSigner(record, agent.key);
    return agent;
  } catch (error) {
    if (error instanceof SignatureInvalid) return null;
    throw error;
  }
}

/** Null for a revision that is damaged or gone: it does not count, and the others do. */
async function readIfIntact(
  repo: OpenRepository,
  context: KeyContext,
  revision: number,
  signal: AbortSignal,
): Promise<KeyRecord | null> {
  try {
    return await readRevision(repo, context, revision, signal);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return null;
  }
}

async function readRevision(
  repo: OpenRepository,
  context: KeyContext,
  revision: number,
  signal: AbortSignal,
): Promise<KeyRecord> {
  const name = keyRecordName(context.machineId, context.epoch, revision);
  try {
    return parseKeyRecord(context, revision, await repo.target.get(name, null, signal));
  } catch (cause) {
    if (!(cause instanceof ObjectNotFound)) throw cause;
    const consequence = revision === 0 ? ". Without it this key epoch can't be opened" : '';
    throw new ChainBroken(`${name} is missing: somebody removed it${consequence}`, { cause });
  }
}

/** The first number after all that are taken, whether those count or not. */
export async function nextRevision(repo: OpenRepository, context: KeyContext, signal: AbortSignal): Promise<number> {
  return ((await listRevisions(repo, context, signal)).at(-1) ?? 0) + 1;
}

/** Ascending. */
async function listRevisions(
  repo: OpenRepository,
  context: KeyContext,
  signal: AbortSignal,
): Promise<readonly number[]> {
  const prefix = keyRecordPrefix(context.machineId, context.epoch);
  const revisions: number[] = [];
  for await (const { name } of repo.target.list(prefix, {}, signal)) {
    const digits = name.slice(prefix.length);
    if (/^\d{4}$/.test(digits)) revisions.push(Number(digits));
  }
  return revisions;
}
