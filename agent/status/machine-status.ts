import { type Chain, checkKnownHead, openChain, ReplicaRolledBack } from '../../replica/chain.ts';
import { sameBytes } from '../../replica/encoding.ts';
import type { Manifest } from '../../replica/manifest.ts';
import { checkKnownTrust } from '../../replica/open-repository.ts';
import type { KeylessSession } from '../session.ts';
import type { FailedStart } from '../state/failed-start.ts';
import type { KeptManifest } from '../state/machine-state.ts';
import { emptyTrackRecord, type TrackRecord } from '../vigilance/track-record.ts';
import { type KnownRuns, knownRuns } from './known-runs.ts';
import { type LocalKnowledge, localKnowledge } from './local-knowledge.ts';

/** Where a machine stands: what the bucket shows of it, compared with what this host remembers. Nothing is unwrapped. */

export interface MachineStatus {
  readonly machine: string;
  /** Null where this host does not know which replica is the machine's: its name is sealed. */
  readonly machineId: Uint8Array | null;
  readonly replica: ReplicaStatus | null;
  readonly local: LocalKnowledge | null;
  readonly runs: KnownRuns;
  /** What is known of the machine with its newest point. */
  readonly track: TrackRecord;
  /** When the status was taken, in milliseconds since 1970. */
  readonly nowMs: number;
}

interface ReplicaStatus {
  readonly head: Chain['head'];
  /** `same`: as this host left it. `newer`: somebody wrote since. `unknown`: this host remembers no head. */
  readonly freshness: 'same' | 'newer' | 'unknown';
  readonly ownerKeyId: Uint8Array;
  readonly points: number;
  /** Their numbers, ascending. */
  readonly retained: readonly number[];
  /** Of the segments that retained points need. */
  readonly storedBytes: number;
  readonly newest: NewestPoint | null;
}

interface NewestPoint {
  readonly point: number;
  readonly publishedMs: number;
  /** Null where only a key would tell: this host did not publish it. */
  readonly manifest: Manifest | null;
}

/** Throws what is wrong with the replica: damage, a rollback, a fork. */
export async function machineStatus(
  session: KeylessSession,
  machine: string,
  failedStart: FailedStart | null,
  signal: AbortSignal,
): Promise<MachineStatus> {
  // The state is read first: what a run publishes in between makes the bucket newer, and never older.
  const local = localKnowledge(session.config, machine);
  const machineId = ownReplica(session, local);
  const chain = machineId === null ? null : await openChain(session.repo, machineId, signal);
  if (local?.trust && machineId !== null) await checkKnownTrust(session.repo, local.trust, signal);
  if (chain === null && machineId !== null && local?.head) {
    throw new ReplicaRolledBack(
      `this host remembers entry ${local.head.seq} of a chain that is not in ${session.repo.target.description}: it was removed, or this is another bucket`,
    );
  }
  const replica = chain === null ? null : await replicaStatus(session, chain, local, signal);
  const runs = knownRuns(machine, local, failedStart);
  const track = keptOf(chain, local)?.track ?? local?.track ?? emptyTrackRecord;
  return { machine, machineId, replica, local, runs, track, nowMs: Date.now() };
}

/** A state folder that was used with another repository says nothing of this one. */
function ownReplica({ repo }: KeylessSession, local: LocalKnowledge | null): Uint8Array | null {
  if (local === null || local.repositoryId === null) return null;
  return sameBytes(local.repositoryId, repo.repository.repositoryId) ? local.machineId : null;
}

async function replicaStatus(
  { repo }: KeylessSession,
  chain: Chain,
  local: LocalKnowledge | null,
  signal: AbortSignal,
): Promise<ReplicaStatus> {
  const { state, head } = chain;
  const known = local?.head ?? null;
  if (known !== null) await checkKnownHead(repo, chain, known, signal);
  const newest = state.newestPoint;
  const kept = keptOf(chain, local);
  return {
    head,
    freshness: known === null ? 'unknown' : known.seq === head.seq ? 'same' : 'newer',
    ownerKeyId: state.ownerKeyId,
    points: state.points.size,
    retained: [...state.points.keys()],
    storedBytes: [...state.segments.values()].reduce((sum, { size }) => sum + size, 0),
    newest:
      newest === null ? null : { point: newest.seq, publishedMs: newest.timeMs, manifest: kept?.manifest ?? null },
  };
}

/** What this host kept of the newest point, also where it never learned that publishing it succeeded. */
function keptOf(chain: Chain | null, local: LocalKnowledge | null): KeptManifest | undefined {
  const newest = chain?.state.newestPoint ?? null;
  return local?.manifests.find(({ entryDigest }) => newest !== null && sameBytes(entryDigest, newest.digest));
}

/** What would be lost now: it grows until the next point. `exact` is false where the snapshot's time is sealed, and publishing came after it. */
export function rpoNow({ replica, nowMs }: MachineStatus): { readonly ms: number; readonly exact: boolean } | null {
  const newest = replica?.newest;
  if (!newest) return null;
  const { manifest, publishedMs } = newest;
  return { ms: Math.max(0, nowMs - (manifest?.snapshotTimeMs ?? publishedMs)), exact: manifest !== null };
}
