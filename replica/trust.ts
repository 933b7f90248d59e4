import { hasRootFingerprint, rootFingerprint } from '../crypto/root-fingerprint.ts';
import { keyIdOf, type PublicKey, type SigningKey } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import { ByteReader, ByteWriter, sameBytes, toHex } from './encoding.ts';
import { chainEntryName, trustName } from './names.ts';
import type { Repository } from './repository.ts';
import {
  checkSignature,
  readPublicKey,
  readSignature,
  type Signature,
  writePublicKey,
  writeSignature,
} from './signed.ts';

/** Trust statements: docs/format.md §4. Each says everything that is in force; all are read, so that none can be forged in between. */
export interface TrustStatement {
  readonly repositoryId: Uint8Array;
  readonly n: number;
  /** SHA-256 of statement n-1; zeros for the first. */
  readonly previous: Uint8Array;
  readonly createdMs: number;
  readonly root: PublicKey;
  readonly lineage: readonly RootReplacement[];
  /** RSA SubjectPublicKeyInfo, DER: every data key is wrapped for its private half, too. */
  readonly recoveryPublicKey: Uint8Array;
  /** Ascending by key id. */
  readonly agents: readonly AgentTrust[];
  /** Recovery points younger than this are never swept; 0: no floor. */
  readonly retentionFloorDays: number;
}

export interface SignedTrust extends TrustStatement {
  /** SHA-256 of the whole statement. */
  readonly digest: Uint8Array;
}

export interface RootReplacement {
  readonly oldRoot: PublicKey;
  readonly signature: Signature;
}

export interface AgentTrust {
  readonly key: PublicKey;
  /** `null`: certified. Otherwise revoked: entries count only up to these, for these machines. */
  readonly revoked: readonly RevocationCutoff[] | null;
}

export interface RevocationCutoff {
  readonly machineId: Uint8Array;
  readonly lastSeq: number;
  /** SHA-256 of entry `lastSeq`. */
  readonly digest: Uint8Array;
}

const noDigest = new Uint8Array(32);
const status = { certified: 1, revoked: 2 } as const;

/** A statement that doesn't follow from the one before, or an older one than is known. */
export class TrustBroken extends Error {
  readonly code = 'TRUST_BROKEN';
  override readonly name = 'TrustBroken';
}

/** Signed by an agent that the root key has not certified. */
export class AgentNotTrusted extends Error {
  readonly code = 'AGENT_NOT_TRUSTED';
  override readonly name = 'AgentNotTrusted';
}

/** Signs a new statement. `root` is the key now in force. */
export function encodeTrust(statement: TrustStatement, root: SigningKey): Uint8Array {
  const writer = new ByteWriter().ascii('FKTS').u16(1).raw(statement.repositoryId).u64(statement.n);
  writer.raw(statement.previous).u64(statement.createdMs);
  writePublicKey(writer, statement.root).varint(statement.lineage.length);
  for (const { oldRoot, signature } of statement.lineage) {
    writePublicKey(writer, oldRoot).u8(signature.algorithm).raw(signature.bytes);
  }
  writer.bytes(statement.recoveryPublicKey).varint(statement.agents.length);
  for (const agent of sortAgents(statement.agents)) writeAgent(writer, agent);
  writer.varint(statement.retentionFloorDays);
  return writeSignature(writer, 'failkit/v1/trust', root).finish();
}

function writeAgent(writer: ByteWriter, agent: AgentTrust): void {
  writePublicKey(writer, agent.key);
  if (agent.revoked === null) {
    writer.u8(status.certified);
    return;
  }
  writer.u8(status.revoked).varint(agent.revoked.length);
  const cutoffs = [...agent.revoked].sort((a, b) => Buffer.compare(a.machineId, b.machineId));
  for (const { machineId, lastSeq, digest } of cutoffs) writer.raw(machineId).varint(lastSeq).raw(digest);
}

function sortAgents(agents: readonly AgentTrust[]): readonly AgentTrust[] {
  return [...agents].sort((a, b) => Buffer.compare(keyIdOf(a.key), keyIdOf(b.key)));
}

/** Checks the signature by the root that the statement itself names; `checkTrustHistory` ties that to the repository. */
export function parseTrust(n: number, repositoryId: Uint8Array, bytes: Uint8Array): SignedTrust {
  const name = trustName(n);
  const reader = new ByteReader(name, bytes);
  reader.expectAscii('FKTS');
  reader.expectU16(1, 'version');
  reader.expectRaw(repositoryId, 'repository');
  if (reader.u64() !== n) throw reader.invalid('another statement number than its name says', reader.offset - 8);
  const previous = reader.raw(32).slice();
  if (n === 0 && previous.some((byte) => byte !== 0)) throw reader.invalid('a predecessor of the first statement');
  const createdMs = reader.u64();
  const root = readPublicKey(reader);
  const lineage = Array.from({ length: reader.count(98) }, () => ({
    oldRoot: readPublicKey(reader),
    signature: readSignature(reader),
  }));
  const recoveryPublicKey = reader.bytes().slice();
  const agents = readAgents(reader);
  const retentionFloorDays = reader.varint();
  const signed = bytes.subarray(0, reader.offset);
  const signature = readSignature(reader);
  reader.end();
  checkSignature(root, 'failkit/v1/trust', signed, signature, name);
  const fields = { repositoryId, n, previous, createdMs, root, lineage, recoveryPublicKey, agents, retentionFloorDays };
  return { ...fields, digest: sha256(bytes) };
}

function readAgents(reader: ByteReader): readonly AgentTrust[] {
  const agents: AgentTrust[] = [];
  const count = reader.count(35);
  for (let i = 0; i < count; i++) {
    const start = reader.offset;
    const key = readPublicKey(reader);
    const found = reader.u8();
    if (found !== status.certified && found !== status.revoked) throw reader.invalid(`unknown agent status ${found}`);
    const previous = agents.at(-1);
    if (previous !== undefined && Buffer.compare(keyIdOf(previous.key), keyIdOf(key)) >= 0) {
      throw reader.invalid('agents out of order', start);
    }
    agents.push({ key, revoked: found === status.revoked ? readCutoffs(reader) : null });
  }
  return agents;
}

function readCutoffs(reader: ByteReader): readonly RevocationCutoff[] {
  const cutoffs: RevocationCutoff[] = [];
  const count = reader.count(49);
  for (let i = 0; i < count; i++) {
    const start = reader.offset;
    const cutoff = { machineId: reader.raw(16).slice(), lastSeq: reader.varint(), digest: reader.raw(32).slice() };
    if (cutoff.lastSeq === 0) throw reader.invalid('a cut-off before the first entry', start);
    const previous = cutoffs.at(-1);
    if (previous !== undefined && Buffer.compare(previous.machineId, cutoff.machineId) >= 0) {
      throw reader.invalid('machines out of order', start);
    }
    cutoffs.push(cutoff);
  }
  return cutoffs;
}

/** What the outgoing root signs to hand over to the next. */
export function replaceRoot(repositoryId: Uint8Array, oldRoot: SigningKey, newRoot: PublicKey): RootReplacement {
  const bytes = oldRoot.sign('failkit/v1/root-replacement', replacementMessage(repositoryId, newRoot));
  return { oldRoot: oldRoot.publicKey, signature: { algorithm: oldRoot.publicKey.algorithm, bytes } };
}

/** Checks that each statement follows from the one before, from the descriptor's root on. Throws TrustBroken, SignatureInvalid. */
export function checkTrustHistory(repository: Repository, statements: readonly SignedTrust[]): void {
  statements.forEach((statement, n) => {
    const before = statements[n - 1];
    if (!sameBytes(statement.previous, before?.digest ?? noDigest)) {
      throw new TrustBroken(
        `${trustName(n)}: does not follow statement ${n - 1} as it is stored: one of the two was replaced`,
      );
    }
    // The root in force before must be kept, too: else a replaced root could name another successor.
    const [roots, rootsBefore] = [rootsOf(statement), before === undefined ? [repository.firstRoot] : rootsOf(before)];
    const kept = rootsBefore.every((root, i) => samePublicKey(root, roots[i]));
    if (!kept || roots.length > rootsBefore.length + 1) throw lineageBroken(n);
    checkLineage(repository, statement);
  });
}

/** Follows the roots from the repository's first to the one in force. Throws TrustBroken, SignatureInvalid. */
export function checkLineage(repository: Repository, trust: TrustStatement): void {
  const roots = rootsOf(trust);
  if (new Set(roots.map((root) => toHex(keyIdOf(root)))).size !== roots.length) throw lineageBroken(trust.n);
  trust.lineage.forEach((step, i) => {
    const next = roots[i + 1] ?? trust.root;
    const message = replacementMessage(repository.repositoryId, next);
    checkSignature(
      step.oldRoot,
      'failkit/v1/root-replacement',
      message,
      step.signature,
      `${trustName(trust.n)} lineage ${i}`,
    );
  });
}

/** Every root so far, the one in force last. */
function rootsOf(trust: TrustStatement): readonly PublicKey[] {
  return [...trust.lineage.map((step) => step.oldRoot), trust.root];
}

function lineageBroken(n: number): TrustBroken {
  return new TrustBroken(
    `${trustName(n)}: its root key does not descend from the repository's by the statements before it`,
  );
}

/** The root key of this bucket is not the one that the operator pinned. */
export class RootMismatch extends Error {
  readonly code = 'ROOT_MISMATCH';
  override readonly name = 'RootMismatch';
}

/** `replaced`: the pinned root is one that was replaced since; the operator should pin the new one. Throws RootMismatch. */
export function checkRoot(trust: TrustStatement, pinnedFingerprint: string): 'in-force' | 'replaced' {
  if (hasRootFingerprint(trust.root, pinnedFingerprint)) return 'in-force';
  if (trust.lineage.some(({ oldRoot }) => hasRootFingerprint(oldRoot, pinnedFingerprint))) return 'replaced';
  throw new RootMismatch(
    `the root key of this repository is ${rootFingerprint(trust.root)}, not the one that you pinned: this is another repository, or somebody replaced it. Compare with the recovery kit`,
  );
}

/** Who signed an entry, and whether it counts: docs/format.md §8. */
export interface Signer {
  readonly key: PublicKey;
  /** Signed by a revoked key beyond its cut-off: the entry is there, but says nothing. */
  readonly isVoid: boolean;
  /** At the cut-off of a revoked key, the digest that the entry must have. */
  readonly digest: Uint8Array | null;
}

/** The signer of entry `seq` of this machine. Throws AgentNotTrusted for a key that was never certified. */
export function signerOf(trust: TrustStatement, keyId: Uint8Array, machineId: Uint8Array, seq: number): Signer {
  const agent = trust.agents.find(({ key }) => sameBytes(keyIdOf(key), keyId));
  if (agent === undefined) {
    const where = chainEntryName(machineId, seq);
    throw new AgentNotTrusted(`${where} is signed by agent ${toHex(keyId)}, which the root key has not certified`);
  }
  if (agent.revoked === null) return { key: agent.key, isVoid: false, digest: null };
  const cutoff = agent.revoked.find((candidate) => sameBytes(candidate.machineId, machineId));
  const isVoid = cutoff === undefined || seq > cutoff.lastSeq;
  return { key: agent.key, isVoid, digest: cutoff?.lastSeq === seq ? cutoff.digest : null };
}

/** Found out before anything is made or sent: a host's key has to be certified first. Throws AgentNotTrusted. `seq`: of the next entry. */
export function requireCertified(trust: TrustStatement, agent: PublicKey, machineId: Uint8Array, seq: number): void {
  const keyId = keyIdOf(agent);
  if (!signerOf(trust, keyId, machineId, seq).isVoid) return;
  throw new AgentNotTrusted(
    `the key of this host, ${toHex(keyId)}, was revoked: remove agent.key, so that it gets a new one, and certify that`,
  );
}

function replacementMessage(repositoryId: Uint8Array, next: PublicKey): Uint8Array {
  return writePublicKey(new ByteWriter().raw(repositoryId), next).finish();
}

function samePublicKey(a: PublicKey | undefined, b: PublicKey | undefined): boolean {
  return a !== undefined && b !== undefined && a.algorithm === b.algorithm && sameBytes(a.bytes, b.bytes);
}
