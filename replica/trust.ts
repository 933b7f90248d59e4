import { keyIdOf, type PublicKey, type SigningKey } from '../crypto/signing.ts';
import { ByteReader, ByteWriter, sameBytes, toHex } from './encoding.ts';
import { trustName } from './names.ts';
import type { Repository } from './repository.ts';
import {
  checkSignature,
  readPublicKey,
  readSignature,
  type Signature,
  writePublicKey,
  writeSignature,
} from './signed.ts';

/** Trust statements: docs/format.md §4. Each says everything that is in force, so only the newest need be read. */
export interface TrustStatement {
  readonly repositoryId: Uint8Array;
  readonly n: number;
  /** SHA-256 of statement n-1; zeros for the first. */
  readonly previous: Uint8Array;
  readonly createdMs: number;
  readonly root: PublicKey;
  readonly lineage: readonly RootReplacement[];
  /** Ascending by key id. */
  readonly agents: readonly AgentTrust[];
  /** Recovery points younger than this are never swept; 0: no floor. */
  readonly retentionFloorDays: number;
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
}

const status = { certified: 1, revoked: 2 } as const;

/** No agent of that key, or one that was revoked before this entry. */
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
  writer.varint(statement.agents.length);
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
  for (const { machineId, lastSeq } of cutoffs) writer.raw(machineId).varint(lastSeq);
}

function sortAgents(agents: readonly AgentTrust[]): readonly AgentTrust[] {
  return [...agents].sort((a, b) => Buffer.compare(keyIdOf(a.key), keyIdOf(b.key)));
}

/** Checks the signature by the root that the statement itself names; `checkLineage` ties that to the repository. */
export function parseTrust(n: number, repositoryId: Uint8Array, bytes: Uint8Array): TrustStatement {
  const name = trustName(n);
  const reader = new ByteReader(name, bytes);
  reader.expectAscii('FKTS');
  reader.expectU16(1, 'version');
  reader.expectRaw(repositoryId, 'repository');
  if (reader.u64() !== n) throw reader.invalid('another statement number than its name says', reader.offset - 8);
  const previous = reader.raw(32).slice();
  const createdMs = reader.u64();
  const root = readPublicKey(reader);
  const lineage = Array.from({ length: reader.count(98) }, () => ({
    oldRoot: readPublicKey(reader),
    signature: readSignature(reader),
  }));
  const agents = readAgents(reader);
  const retentionFloorDays = reader.varint();
  const signed = bytes.subarray(0, reader.offset);
  const signature = readSignature(reader);
  reader.end();
  checkSignature(root, 'failkit/v1/trust', signed, signature, name);
  return { repositoryId, n, previous, createdMs, root, lineage, agents, retentionFloorDays };
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
  const count = reader.count(17);
  for (let i = 0; i < count; i++) {
    const start = reader.offset;
    const cutoff = { machineId: reader.raw(16).slice(), lastSeq: reader.varint() };
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

/** Follows the roots from the repository's first to the one in force. Throws SignatureInvalid. */
export function checkLineage(repository: Repository, trust: TrustStatement): void {
  let root = repository.root;
  trust.lineage.forEach((step, i) => {
    const next = trust.lineage[i + 1]?.oldRoot ?? trust.root;
    const message = replacementMessage(repository.repositoryId, next);
    if (!samePublicKey(step.oldRoot, root)) throw lineageBroken(trust.n);
    checkSignature(root, 'failkit/v1/root-replacement', message, step.signature, `${trustName(trust.n)} lineage ${i}`);
    root = next;
  });
  if (!samePublicKey(root, trust.root)) throw lineageBroken(trust.n);
}

function lineageBroken(n: number): AgentNotTrusted {
  return new AgentNotTrusted(`${trustName(n)}: its root key does not descend from the repository's`);
}

/** The key that signed entry `seq` of this machine, if it may. Throws AgentNotTrusted. */
export function trustedAgent(trust: TrustStatement, keyId: Uint8Array, machineId: Uint8Array, seq: number): PublicKey {
  const agent = trust.agents.find(({ key }) => sameBytes(keyIdOf(key), keyId));
  const where = `chain entry ${seq} of machine ${toHex(machineId)}`;
  if (agent === undefined) {
    throw new AgentNotTrusted(`${where} is signed by agent ${toHex(keyId)}, which the root key has not certified`);
  }
  const lastSeq = agent.revoked?.find((cutoff) => sameBytes(cutoff.machineId, machineId))?.lastSeq ?? 0;
  if (agent.revoked !== null && seq > lastSeq) {
    throw new AgentNotTrusted(`${where} is signed by agent ${toHex(keyId)}, which was revoked before it`);
  }
  return agent.key;
}

function replacementMessage(repositoryId: Uint8Array, next: PublicKey): Uint8Array {
  return writePublicKey(new ByteWriter().raw(repositoryId), next).finish();
}

function samePublicKey(a: PublicKey, b: PublicKey): boolean {
  return a.algorithm === b.algorithm && sameBytes(a.bytes, b.bytes);
}
