import { ReplicaNotFound, readPoint, verifyWholeChain } from '../../replica/chain.ts';
import type { SegmentLife } from '../../replica/control.ts';
import { chainEntryName, chainPrefix, type SegmentId } from '../../replica/names.ts';
import { checkKeyRecords } from '../../replica/read-key-records.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { newTargetMetrics, withMetrics } from '../../storage-targets/with-metrics.ts';
import type { OpenReplica } from '../open-point.ts';
import type { RestoreWorkers } from '../restore-workers.ts';
import { attributeDamage } from './attribute-damage.ts';
import { checkChecksums, checkCiphertext, checkPresent, neededBy, type SegmentsCheck } from './check-segments.ts';
import { CheckedKeys } from './checked-keys.ts';
import { DamageRegister } from './damage-register.ts';
import { proofOf, type VerifyCounts, type VerifyLevel, type VerifyReport } from './finding.ts';
import { inspectPoints } from './inspect-points.ts';

/** Is what a replica needs still there, and still what it was? Four levels, each with the reach that its report states. */

export interface VerifyOptions {
  readonly level: VerifyLevel;
  /** Only these recovery points; null: all that are retained. */
  readonly points: readonly number[] | null;
  /** Also walk the whole chain from its first entry and compare every summary. */
  readonly chain: boolean;
  /** For level `full`: threads that open what was fetched. */
  readonly workers: RestoreWorkers;
  /** Requests at a time; memory is that many segments (or, at level `full`, ranges). */
  readonly inFlightMax: number;
}

/**
 * Never stops at damage: every object that is wrong becomes a finding. Throws when nothing can be said: the store is away, no key
 * opens anything, a point is asked for that there is not. All levels but `full` work with a replica that was opened without
 * providers. Open it with `salvage`, so that damage to the chain is a finding, too.
 */
export async function verifyReplica(
  replica: OpenReplica,
  options: VerifyOptions,
  signal: AbortSignal,
): Promise<VerifyReport> {
  const verify = new Verify(replica, options);
  return await verify.run(signal);
}

class Verify {
  readonly #replica: OpenReplica;
  readonly #options: VerifyOptions;
  readonly #register = new DamageRegister();
  readonly #metrics = newTargetMetrics();
  /** Ascending; those that can be looked at. */
  readonly #points: readonly number[];
  readonly #counts: VerifyCounts = {
    entries: 0,
    keyRecords: 0,
    segments: 0,
    unprovable: 0,
    pages: 0,
    records: 0,
    blocks: 0,
    attachments: 0,
  };

  constructor(replica: OpenReplica, options: VerifyOptions) {
    const target = withMetrics(replica.repo.target, this.#metrics);
    this.#replica = replica.withRepository({ ...replica.repo, target });
    this.#options = options;
    this.#points = choosePoints(replica, options.points);
  }

  async run(signal: AbortSignal): Promise<VerifyReport> {
    const epochs = await this.#checkEntries(signal);
    await this.#checkKeyRecords(epochs, signal);
    await this.#checkSegments(signal);
    if (this.#options.level === 'full') await this.#inspectPoints(signal);
    for (const damage of this.#replica.damage) this.#register.add({ ...damage, kind: 'damaged' });
    if (this.#options.chain) await this.#walkChain(signal);
    return this.#report();
  }

  /** The entries of the points themselves. Returns the key epoch of each point. */
  async #checkEntries(signal: AbortSignal): Promise<ReadonlyMap<number, number>> {
    const { repo, chain } = this.#replica;
    const epochs = new Map<number, number>();
    for (const point of this.#points) {
      try {
        const { body } = await readPoint(repo, chain, point, signal);
        if (body.type === 'publish') epochs.set(point, body.epoch);
        this.#counts.entries++;
      } catch (error) {
        this.#register.note(chainEntryName(chain.machineId, point), error, [point]);
      }
    }
    return epochs;
  }

  async #checkKeyRecords(epochOfPoint: ReadonlyMap<number, number>, signal: AbortSignal): Promise<void> {
    const { repo, chain } = this.#replica;
    const { repositoryId } = repo.repository;
    for (const [epoch, digest] of chain.state.epochs) {
      const context = { repositoryId, machineId: chain.machineId, epoch };
      const { records, damage } = await checkKeyRecords(repo, context, digest, signal);
      this.#counts.keyRecords += records;
      // A point may hold blocks of its own epoch and of any before.
      const mayNeedIt = [...epochOfPoint].filter(([, newest]) => newest >= epoch).map(([point]) => point);
      for (const { isFirst, ...found } of damage)
        this.#register.add({
          ...found,
          kind: 'damaged',
          points: isFirst ? mayNeedIt : [],
          certain: !isFirst || mayNeedIt.length === 0,
        });
    }
  }

  async #checkSegments(signal: AbortSignal): Promise<void> {
    const check = this.#segmentsOf(this.#points);
    this.#counts.segments = check.needed.length;
    const { level } = this.#options;
    if (level === 'checksum') this.#counts.unprovable = await checkChecksums(check, signal);
    else if (level === 'ciphertext') await checkCiphertext(check, signal);
    else await checkPresent(check, signal);
  }

  /** The segments whose life covers one of these points. */
  #segmentsOf(points: readonly number[]): SegmentsCheck {
    const { repo, chain } = this.#replica;
    const pointsOf = (life: SegmentLife): readonly number[] =>
      points.filter((point) => point >= life.birth && (life.death === 0 || point < life.death));
    const needed = neededBy(chain.state.segments.values(), pointsOf);
    const { inFlightMax } = this.#options;
    return { target: repo.target, machineId: chain.machineId, needed, pointsOf, register: this.#register, inFlightMax };
  }

  async #inspectPoints(signal: AbortSignal): Promise<void> {
    const { repo, chain } = this.#replica;
    const keys = new CheckedKeys(this.#replica.keys, chain.machineId);
    using reader = new SegmentReader(repo, chain.machineId, keys);
    const { workers, inFlightMax } = this.#options;
    const tools = { reader, keys, workers, rangesInFlightMax: inFlightMax };
    const check = {
      replica: this.#replica,
      points: this.#points,
      tools,
      register: this.#register,
      counts: this.#counts,
    };
    await inspectPoints(check, signal);
    // Nothing could be looked at: that is no verdict.
    const { firstRefusal } = this.#register;
    if (firstRefusal !== null && this.#counts.pages + this.#counts.records === 0) throw firstRefusal.error;
    if (this.#register.marks.length === 0) return;
    await attributeDamage(check, signal);
    // Blocks below a page that can't be read can't be found, but an agent whose cache has that page goes on using them.
    const blind = this.#points.filter((point) => this.#register.blindPoints.has(point));
    const below = this.#segmentsOf(blind);
    const unsuspected = below.needed.filter((life) => this.#register.marksOfSegment(life).length === 0);
    await checkCiphertext({ ...below, needed: unsuspected }, signal);
  }

  async #walkChain(signal: AbortSignal): Promise<void> {
    const { repo, chain } = this.#replica;
    try {
      this.#counts.entries = await verifyWholeChain(repo, chain, signal);
    } catch (error) {
      this.#register.note(chainPrefix(chain.machineId), error);
    }
  }

  #report(): VerifyReport {
    const { level, chain, points } = this.#options;
    const lost = lostIn(this.#replica).filter((point) => points === null || points.includes(point));
    const all = [...new Set([...this.#points, ...lost])].sort((a, b) => a - b);
    const marks = this.#register.marks;
    const isHurt = (point: number): boolean =>
      marks.some((mark) => mark.certain && mark.kind === 'damaged' && mark.points.has(point));
    const isTouched = (point: number): boolean => marks.some((mark) => mark.points.has(point));
    return {
      level,
      proves: proofOf[level],
      chainWalked: chain,
      counts: this.#counts,
      readBytes: this.#metrics.get.bytes,
      requests: this.#metrics.get.requests + this.#metrics.head.requests + this.#metrics.list.requests,
      findings: marks.map(({ object, code, what, kind, certain, points: hurt }) => ({
        object,
        code,
        what,
        kind,
        certain,
        points: [...hurt].sort((a, b) => a - b),
      })),
      whole: all.filter((point) => !isTouched(point)),
      hurt: all.filter(isHurt),
      doubtful: all.filter((point) => isTouched(point) && !isHurt(point)),
      repairable: this.#repairable(),
    };
  }

  #repairable(): readonly SegmentId[] {
    const newest = this.#replica.chain.state.newestPoint?.seq;
    if (newest === undefined) return [];
    if (!this.#register.blindPoints.has(newest)) return this.#register.damagedSegments(newest);
    const damaged = this.#segmentsOf([newest]).needed.filter((life) => this.#register.isDamaged(life));
    return damaged.map(({ tenure, number }) => ({ tenure, number }));
  }
}

function choosePoints(replica: OpenReplica, wanted: readonly number[] | null): readonly number[] {
  if (wanted === null) return replica.points;
  const unknown = wanted.find((point) => !replica.points.includes(point) && !lostIn(replica).includes(point));
  if (unknown !== undefined) throw new ReplicaNotFound(`there is no recovery point ${unknown}`);
  return replica.points.filter((point) => wanted.includes(point));
}

/** Points that are lost with their entries, or that damaged entries may have published. */
function lostIn(replica: OpenReplica): readonly number[] {
  return replica.damage.flatMap(({ points }) => points);
}
