import { randomBytes } from 'node:crypto';
import { keyIdOf, type SigningKey } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import type { ChainHead } from './chain.ts';
import { type ChainEntry, type EntryBody, encodeEntry, parseEntry } from './chain-entry.ts';
import { type ChainState, isSummaryDue } from './chain-state.ts';
import type { Birth, Death } from './control.ts';
import { placeControl } from './control-object.ts';
import { toHex } from './encoding.ts';
import { chainEntryName } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { putOrCompare } from './put-once.ts';
import { AgentNotTrusted, signerOf } from './trust.ts';

/** Where a chain stands, for whoever writes its next entry. The state is used up: it becomes that after the entry. */
export interface ChainEnd {
  readonly machineId: Uint8Array;
  readonly head: ChainHead;
  readonly state: ChainState;
}

export interface EntryToWrite {
  readonly body: EntryBody;
  readonly births: readonly Birth[];
  readonly deaths: readonly Death[];
}

export interface EntryWriter {
  readonly agent: SigningKey;
  readonly timeMs: number;
  /** Called before the entry is put: from then on it may exist. */
  readonly announce: (next: ChainHead) => void;
}

/**
 * Signs and puts the entry after the head (rule R1). Null where the place is taken by another entry. Throws ChainInvalid for one that
 * breaks the protocol, and AgentNotTrusted for an agent that may not write; after any other error the entry may exist.
 */
export async function writeEntry(
  repo: OpenRepository,
  { machineId, head, state }: ChainEnd,
  { body, births, deaths }: EntryToWrite,
  writer: EntryWriter,
  signal: AbortSignal,
): Promise<ChainEntry | null> {
  const { repositoryId } = repo.repository;
  const { agent, timeMs } = writer;
  const seq = head.seq + 1;
  const tenure = body.type === 'begin' ? seq : state.tenure;
  const signerKeyId = keyIdOf(agent.publicKey);
  requireTrusted(repo, signerKeyId, machineId, seq);
  const place = { repositoryId, machineId, seq, tenure, timeMs, body, signerKeyId, isVoid: false };
  state.apply(place, { births, deaths, summary: null });
  const summary = isSummaryDue(seq) ? state.summary() : null;
  const control = await placeControl(repo.target, place, body.type === 'publish', { births, deaths, summary }, signal);
  const fields = { ...place, previous: head.digest, nonce: randomBytes(16), trust: repo.trust.n, control };
  const bytes = encodeEntry(fields, agent);
  const entry = parseEntry(repositoryId, machineId, seq, bytes);
  writer.announce({ seq, digest: entry.digest });
  if (!(await putOrCompare(repo.target, chainEntryName(machineId, seq), bytes, sha256(bytes), signal))) return null;
  state.setPointDigest(seq, entry.digest);
  return entry;
}

/** An entry by a key that nobody certified would end the chain for good; one by a revoked key would count for nothing. */
function requireTrusted(repo: OpenRepository, keyId: Uint8Array, machineId: Uint8Array, seq: number): void {
  if (!signerOf(repo.trust, keyId, machineId, seq).isVoid) return;
  throw new AgentNotTrusted(
    `agent ${toHex(keyId)} was revoked for machine ${toHex(machineId)}: give this host a new key, and certify that`,
  );
}
