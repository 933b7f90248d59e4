import { sha256 } from '../crypto/suite.ts';
import { ObjectNotFound } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import {
  type Chain,
  type ChainHead,
  openChain,
  ReplicaForked,
  ReplicaNotFound,
  ReplicaRolledBack,
  readEntries,
} from './chain.ts';
import type { ChainEntry } from './chain-entry.ts';
import { isNeeded } from './chain-state.ts';
import type { SegmentLife } from './control.ts';
import { ObjectAltered } from './damage.ts';
import { sameBytes, toHex } from './encoding.ts';
import { eachInParallel } from './in-parallel.ts';
import { lockReplica } from './lock-replica.ts';
import {
  chainEntryName,
  chainPrefix,
  controlName,
  keyRecordsPrefix,
  repositoryName,
  segmentName,
  segmentsPrefix,
  trustName,
} from './names.ts';
import { newestNumber, type OpenRepository } from './open-repository.ts';
import { putOrCompare } from './put-once.ts';

/**
 * The same repository at a second place: ciphertext as it is, so it takes no key. Segments come before the entries that need them, so that
 * the copy is a replica at every moment, an older one until it ends; what is there already is left alone.
 */

/** Segments at once: each is in memory as a whole. */
const segmentsAtOnceMax = 8;
const entriesAtOnce = 64;
/** Each time somebody else wrote to the source, and pruned what was being copied. */
const attemptsMax = 5;

export interface CopyProgress {
  segments: number;
  bytes: number;
  /** Segments that the destination had already. */
  presentSegments: number;
}

export interface CopiedMachine {
  readonly head: ChainHead;
  readonly points: number;
}

/** The descriptor, and the trust statements in their order. Throws ReplicaForked where another repository is there. */
export async function copyDescription(from: OpenRepository, to: StorageTarget, signal: AbortSignal): Promise<void> {
  await copyObject(from.target, to, repositoryName, signal);
  for (let n = 0; n <= from.trust.n; n++) await copyObject(from.target, to, trustName(n), signal);
}

/**
 * Whatever the retained points need, then the chain up to the head that was found first. `lockUntil`: how long the destination locks what is
 * put; what was there before is locked as long whenever the source began another generation. Null where it has no object lock.
 */
export async function copyMachine(
  from: OpenRepository,
  to: StorageTarget,
  machineId: Uint8Array,
  progress: CopyProgress,
  lockUntil: Date | null,
  signal: AbortSignal,
): Promise<CopiedMachine> {
  // Asked first: somebody else may copy at the same time, and then the destination is soon longer than what was found here.
  const there = await newestNumber(to, chainPrefix(machineId), signal);
  let chain = await openKnownChain(from, machineId, signal);
  if (there !== null) await requirePrefix(there, chain, from, to, signal);
  for (let attempt = 1; ; attempt++) {
    try {
      await copySegments(chain, from.target, to, progress, signal);
      break;
    } catch (error) {
      // Of a point that was pruned meanwhile, and swept.
      const now = await openKnownChain(from, machineId, signal);
      if (!(error instanceof ObjectNotFound) || now.head.seq === chain.head.seq || attempt === attemptsMax) throw error;
      chain = now;
    }
  }
  for await (const { name } of from.target.list(keyRecordsPrefix(machineId), {}, signal))
    await copyObject(from.target, to, name, signal);
  // Before the entry that says so. Never for as long as it says: whoever stole an agent's key may have written it.
  if (lockUntil !== null && (await isLockDue(chain, from, to, signal)))
    await lockReplica(to, { machineId, state: chain.state, births: [] }, lockUntil, signal);
  await copyEntries(chain, from, to, signal);
  return { head: chain.head, points: chain.state.points.size };
}

async function openKnownChain(from: OpenRepository, machineId: Uint8Array, signal: AbortSignal): Promise<Chain> {
  const chain = await openChain(from, machineId, signal);
  if (chain !== null) return chain;
  throw new ReplicaNotFound(`machine ${toHex(machineId)} has no replica in ${from.target.description}`);
}

/** What the destination has of the chain has to be the beginning of the source's. */
async function requirePrefix(
  there: number,
  { machineId, head }: Chain,
  from: OpenRepository,
  to: StorageTarget,
  signal: AbortSignal,
): Promise<void> {
  if (there > head.seq)
    throw new ReplicaRolledBack(
      `machine ${toHex(machineId)}: ${to.description} has entry ${there}, and ${from.target.description} ends with ${head.seq}: the copy was written to, or an old state of the source was put back`,
    );
  await copyObject(from.target, to, chainEntryName(machineId, there), signal);
}

async function copySegments(
  { machineId, state }: Chain,
  from: StorageTarget,
  to: StorageTarget,
  progress: CopyProgress,
  signal: AbortSignal,
): Promise<void> {
  const sizes = new Map<string, number>();
  for await (const { name, bytes } of to.list(segmentsPrefix(machineId), {}, signal)) sizes.set(name, bytes);
  const points = [...state.points.keys()].sort((a, b) => a - b).map((seq) => ({ seq }));
  progress.presentSegments = 0;
  async function* missing(): AsyncGenerator<SegmentLife> {
    for (const life of state.segments.values()) {
      if (!isNeeded(life, points)) continue;
      if (sizes.get(segmentName(machineId, life)) === life.size) progress.presentSegments++;
      else yield life;
    }
  }
  await eachInParallel(missing, segmentsAtOnceMax, signal, async (life, either) => {
    const name = segmentName(machineId, life);
    const bytes = await from.get(name, null, either);
    const digest = sha256(bytes);
    if (!sameBytes(digest, life.sha256))
      throw new ObjectAltered(`${name} in ${from.description} is not what was published: altered or replaced`);
    await putSame(to, name, bytes, digest, either);
    progress.segments++;
    progress.bytes += bytes.length;
  });
}

/** Whether the source has locked a generation that the destination's entries do not know of. */
async function isLockDue(
  { machineId, state }: Chain,
  from: OpenRepository,
  to: StorageTarget,
  signal: AbortSignal,
): Promise<boolean> {
  const copied = await openChain({ ...from, target: to }, machineId, signal);
  return state.lockGeneration > (copied?.state.lockGeneration ?? 0);
}

async function copyEntries(chain: Chain, from: OpenRepository, to: StorageTarget, signal: AbortSignal): Promise<void> {
  const { machineId, head } = chain;
  const there = (await newestNumber(to, chainPrefix(machineId), signal)) ?? 0;
  for (let first = there + 1; first <= head.seq; first += entriesAtOnce) {
    const until = Math.min(first + entriesAtOnce - 1, head.seq);
    for (const entry of await readEntries(from, machineId, first, until, signal))
      await copyEntry(entry, from.target, to, signal);
  }
}

/** Control data first: an entry without them would end the chain. */
async function copyEntry(
  { machineId, seq, control }: ChainEntry,
  from: StorageTarget,
  to: StorageTarget,
  signal: AbortSignal,
): Promise<void> {
  if (!('inline' in control)) await copyObject(from, to, controlName(machineId, seq, control.sha256), signal);
  await copyObject(from, to, chainEntryName(machineId, seq), signal);
}

async function copyObject(from: StorageTarget, to: StorageTarget, name: string, signal: AbortSignal): Promise<void> {
  const bytes = await from.get(name, null, signal);
  await putSame(to, name, bytes, sha256(bytes), signal);
}

async function putSame(
  to: StorageTarget,
  name: string,
  bytes: Uint8Array,
  digest: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  if (await putOrCompare(to, name, bytes, digest, signal)) return;
  throw new ReplicaForked(
    `${to.description} has another ${name}: it holds another repository, or was written to by somebody else than this copy`,
  );
}
