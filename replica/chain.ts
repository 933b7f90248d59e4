import { ObjectNotFound } from '../storage-targets/errors.ts';
import { type ChainEntry, checkEntrySignature, parseEntry, summaryInterval } from './chain-entry.ts';
import { ChainInvalid, ChainState, isSummaryDue } from './chain-state.ts';
import type { Control } from './control.ts';
import { encodeControl, type Summary } from './control.ts';
import { readControl } from './control-object.ts';
import { sameBytes, toHex } from './encoding.ts';
import { inParallel } from './in-parallel.ts';
import { chainEntryName, chainPrefix } from './names.ts';
import { newestNumber, type OpenRepository } from './open-repository.ts';
import { signerOf } from './trust.ts';

/** Reading a machine's chain: docs/format.md §8 and §9. */

const entriesInFlightMax = 16;
const noControl: Control = { births: [], deaths: [], summary: null };

/** A place in a chain, as a local mark or an operator's note remembers it. */
export interface ChainHead {
  readonly seq: number;
  readonly digest: Uint8Array;
}

export interface Chain {
  readonly machineId: Uint8Array;
  readonly head: ChainHead;
  readonly state: ChainState;
  /** Entries read while opening, oldest first: from the newest summary (or entry 1) to the head. */
  readonly recent: readonly CheckedEntry[];
}

/** An entry is missing, or does not follow the one before it. */
export class ChainBroken extends Error {
  readonly code = 'CHAIN_BROKEN';
  override readonly name = 'ChainBroken';
}
/** A newer head, or newer trust, is known than the store shows: somebody put back an old state or removed the newest. */
export class ReplicaRolledBack extends Error {
  readonly code = 'REPLICA_ROLLED_BACK';
  override readonly name = 'ReplicaRolledBack';
}
/** The store shows another entry than the one that is known under this number: a copy of the bucket went its own way. */
export class ReplicaForked extends Error {
  readonly code = 'REPLICA_FORKED';
  override readonly name = 'ReplicaForked';
}
/** The machine has no chain in this repository. */
export class ReplicaNotFound extends Error {
  readonly code = 'REPLICA_NOT_FOUND';
  override readonly name = 'ReplicaNotFound';
}

/** One LIST and at most 64 GETs, plus one per large control object. Null when the machine has no chain. */
export async function openChain(
  repo: OpenRepository,
  machineId: Uint8Array,
  signal: AbortSignal,
): Promise<Chain | null> {
  const headSeq = await newestNumber(repo.target, chainPrefix(machineId), signal);
  return headSeq === null ? null : await openChainSince(repo, machineId, headSeq, headSeq, signal);
}

/** As it was after entry `headSeq`, with all entries from `since` on read, and the segments known that any point since then needed. */
export async function openChainSince(
  repo: OpenRepository,
  machineId: Uint8Array,
  since: number,
  headSeq: number,
  signal: AbortSignal,
): Promise<Chain> {
  let from = Math.max(1, since - (since % summaryInterval));
  let recent = await readEntries(repo, machineId, from, headSeq, signal);
  // A void entry where a summary is due says nothing: the summary before it does.
  while (recent[0]?.isVoid === true && from > 1) {
    const to = from - 1;
    from = Math.max(1, from - summaryInterval);
    recent = linked([...(await readEntries(repo, machineId, from, to, signal)), ...recent]);
  }
  const state = await replay(repo, recent, signal);
  return { machineId, head: { seq: headSeq, digest: last(recent).digest }, state, recent };
}

/** Entries `from` to `to`, each checked: parsed, signed by an agent that may, and following the one before. */
export async function readEntries(
  repo: OpenRepository,
  machineId: Uint8Array,
  from: number,
  to: number,
  signal: AbortSignal,
): Promise<readonly CheckedEntry[]> {
  const seqs = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  return linked(
    await inParallel(seqs, entriesInFlightMax, signal, (seq, either) => readEntry(repo, machineId, seq, either)),
  );
}

function linked(entries: readonly CheckedEntry[]): readonly CheckedEntry[] {
  entries.forEach((entry, i) => {
    const before = entries[i - 1];
    if (before !== undefined) checkLink(before, entry);
  });
  return entries;
}

/** An entry whose signature was checked. */
export interface CheckedEntry extends ChainEntry {
  /** Signed by a revoked key beyond its cut-off: takes its place and says nothing. */
  readonly isVoid: boolean;
}

export async function readEntry(
  repo: OpenRepository,
  machineId: Uint8Array,
  seq: number,
  signal: AbortSignal,
): Promise<CheckedEntry> {
  const entry = await readSignedEntry(repo, machineId, seq, signal);
  if (!entry.isVoid) checkTrustKnown(repo, entry);
  return entry;
}

/** An entry by itself: parsed, and signed by an agent that may. */
export async function readSignedEntry(
  repo: OpenRepository,
  machineId: Uint8Array,
  seq: number,
  signal: AbortSignal,
): Promise<CheckedEntry> {
  const name = chainEntryName(machineId, seq);
  const entry = parseEntry(repo.repository.repositoryId, machineId, seq, await readEntryBytes(repo, name, signal));
  const signer = signerOf(repo.trust, entry.signerKeyId, machineId, seq);
  checkEntrySignature(entry, signer.key);
  if (!signer.isVoid && signer.digest !== null && !sameBytes(signer.digest, entry.digest)) {
    throw new ChainBroken(`${name} is not the entry at which the root key revoked its agent: it was replaced`);
  }
  return { ...entry, isVoid: signer.isVoid };
}

/** Throws ReplicaRolledBack for an entry that was written under newer trust than the store shows. */
export function checkTrustKnown(repo: OpenRepository, entry: ChainEntry): void {
  if (entry.trust <= repo.trust.n) return;
  throw new ReplicaRolledBack(
    `${chainEntryName(entry.machineId, entry.seq)} was written under trust statement ${entry.trust}, but the newest here is ${repo.trust.n}: newer ones were removed`,
  );
}

async function readEntryBytes(repo: OpenRepository, name: string, signal: AbortSignal): Promise<Uint8Array> {
  try {
    return await repo.target.get(name, null, signal);
  } catch (cause) {
    if (!(cause instanceof ObjectNotFound)) throw cause;
    throw new ChainBroken(`${name} is missing: chain entries are never deleted, so somebody removed it`, { cause });
  }
}

function checkLink(before: ChainEntry, entry: ChainEntry): void {
  if (sameBytes(before.digest, entry.previous)) return;
  const name = chainEntryName(entry.machineId, entry.seq);
  throw new ChainBroken(`${name} does not follow entry ${before.seq} as it is stored: one of the two was replaced`);
}

async function replay(
  repo: OpenRepository,
  entries: readonly CheckedEntry[],
  signal: AbortSignal,
): Promise<ChainState> {
  const first = entries[0];
  const summarised = first !== undefined && isSummaryDue(first.seq) ? first : null;
  const { summary } = summarised === null ? { summary: null } : await readControl(repo.target, summarised, signal);
  const state =
    summarised !== null && summary !== null ? ChainState.fromSummary(summarised, summary) : new ChainState();
  for (const entry of summarised === null ? entries : entries.slice(1)) await applyEntry(repo, state, entry, signal);
  return state;
}

export async function applyEntry(
  repo: OpenRepository,
  state: ChainState,
  entry: CheckedEntry,
  signal: AbortSignal,
): Promise<void> {
  state.apply(entry, entry.isVoid ? noControl : await readControl(repo.target, entry, signal));
  state.setPointDigest(entry.seq, entry.digest);
}

/**
 * Checks a chain against what is known of it: a head that a mark, a receipt or the operator remembers.
 * Throws ReplicaRolledBack or ReplicaForked. One GET at most.
 */
export async function checkKnownHead(
  repo: OpenRepository,
  chain: Chain,
  known: ChainHead,
  signal: AbortSignal,
): Promise<void> {
  if (known.seq > chain.head.seq) {
    throw new ReplicaRolledBack(
      `machine ${toHex(chain.machineId)}: entry ${known.seq} is known, but the newest in the store is ${chain.head.seq}: the newest entries were removed, or an old state was put back`,
    );
  }
  const stored =
    chain.recent.find((entry) => entry.seq === known.seq) ??
    (await readEntry(repo, chain.machineId, known.seq, signal));
  if (sameBytes(stored.digest, known.digest)) return;
  throw new ReplicaForked(
    `${chainEntryName(chain.machineId, known.seq)} is another entry than the one that is known: this is a copy of the bucket that went its own way`,
  );
}

/** The publish entry of a retained point, checked against the digest that the chain vouches for. */
export async function readPoint(
  repo: OpenRepository,
  chain: Chain,
  seq: number,
  signal: AbortSignal,
): Promise<CheckedEntry> {
  const point = chain.state.points.get(seq);
  if (point === undefined) throw new ReplicaNotFound(`machine ${toHex(chain.machineId)} has no recovery point ${seq}`);
  const entry =
    chain.recent.find((recent) => recent.seq === seq) ?? (await readEntry(repo, chain.machineId, seq, signal));
  if (sameBytes(entry.digest, point.digest)) return entry;
  throw new ChainBroken(
    `${chainEntryName(chain.machineId, seq)} is not the entry that the chain's summary names: it was replaced`,
  );
}

/** Walks every entry from the first and compares each summary with what the entries amount to. */
export async function verifyWholeChain(repo: OpenRepository, chain: Chain, signal: AbortSignal): Promise<number> {
  const state = new ChainState();
  for await (const _entry of replayWholeChain(repo, chain, state, signal));
  return state.seq;
}

/** Every entry from the first to the head that was read, each after it was applied to `state`, and its summary compared with that. */
export async function* replayWholeChain(
  repo: OpenRepository,
  chain: Chain,
  state: ChainState,
  signal: AbortSignal,
): AsyncGenerator<CheckedEntry> {
  let before: CheckedEntry | null = null;
  for (let from = 1; from <= chain.head.seq; from += summaryInterval) {
    const to = Math.min(from + summaryInterval - 1, chain.head.seq);
    for (const entry of await readEntries(repo, chain.machineId, from, to, signal)) {
      if (before !== null) checkLink(before, entry);
      await applyEntry(repo, state, entry, signal);
      if (isSummaryDue(entry.seq) && !entry.isVoid) await checkSummary(repo, state, entry, signal);
      before = entry;
      yield entry;
    }
  }
  if (before !== null && sameBytes(before.digest, chain.head.digest)) return;
  throw new ChainBroken(`machine ${toHex(chain.machineId)}: the entries changed while they were read`);
}

async function checkSummary(
  repo: OpenRepository,
  state: ChainState,
  entry: ChainEntry,
  signal: AbortSignal,
): Promise<void> {
  const { summary } = await readControl(repo.target, entry, signal);
  if (sameBytes(encodeSummary(summary), encodeSummary(state.summary()))) return;
  throw new ChainInvalid(
    `${chainEntryName(entry.machineId, entry.seq)}: its summary does not say what the entries before it amount to`,
  );
}

/** The canonical bytes: two summaries say the same exactly when these are the same. */
function encodeSummary(summary: Summary | null): Uint8Array {
  return encodeControl({ births: [], deaths: [], summary }, { publish: false, summary: true });
}

function last(entries: readonly CheckedEntry[]): CheckedEntry {
  const entry = entries.at(-1);
  if (entry === undefined) throw new ChainBroken('a chain without entries');
  return entry;
}
