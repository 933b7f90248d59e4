import pLimit from 'p-limit';
import { type Chain, type CheckedEntry, checkTrustKnown, openChain, readSignedEntry } from './chain.ts';
import { summaryInterval } from './chain-entry.ts';
import { ChainState, isSummaryDue } from './chain-state.ts';
import type { Control, RetainedPoint } from './control.ts';
import { readControl } from './control-object.ts';
import { type Damage, damageOf, isDamage } from './damage.ts';
import { sameBytes } from './encoding.ts';
import { chainEntryName, chainPrefix, controlName, invertedNumberOf, segmentKey, trustName } from './names.ts';
import { newestNumber, type OpenRepository } from './open-repository.ts';

/**
 * Reading a chain of which objects are damaged or missing: for listing and restoring only, never for writing. An entry counts if
 * its own signature holds; what nothing next to it vouches for is said. Counts of dead units may be too low here, never too high.
 */

const entriesInFlightMax = 16;

export interface SalvagedChain extends Chain {
  /** Empty when the chain is whole. */
  readonly damage: readonly Damage[];
  /** Retained points whose own entry can't be used, ascending. They are not in `state.points`. */
  readonly lostPoints: readonly number[];
}

/** The chain as `openChain` reads it, or what can be made of it. Null when the machine has no chain. */
export async function openChainSalvage(
  repo: OpenRepository,
  machineId: Uint8Array,
  signal: AbortSignal,
): Promise<SalvagedChain | null> {
  try {
    const chain = await openChain(repo, machineId, signal);
    if (chain === null) return null;
    return await new Salvage(repo, machineId, signal).withPoints(chain);
  } catch (error) {
    if (!isDamage(error)) throw error;
    const chain = await new Salvage(repo, machineId, signal).chain();
    const unexplained = chain.damage.length > 0 ? [] : [damageOf(chainPrefix(machineId), error)];
    return { ...chain, damage: [...chain.damage, ...unexplained] };
  }
}

class Salvage {
  readonly #repo: OpenRepository;
  readonly #machineId: Uint8Array;
  readonly #signal: AbortSignal;
  readonly #entries = new Map<number, CheckedEntry>();
  readonly #damage: Damage[] = [];
  /** The summary that the state starts from. */
  #baseSeq = Number.POSITIVE_INFINITY;

  constructor(repo: OpenRepository, machineId: Uint8Array, signal: AbortSignal) {
    this.#repo = repo;
    this.#machineId = machineId;
    this.#signal = signal;
  }

  async chain(): Promise<SalvagedChain> {
    const headSeq = (await newestNumber(this.#repo.target, chainPrefix(this.#machineId), this.#signal)) ?? 0;
    const state = await this.#base(headSeq);
    this.#baseSeq = state.seq;
    this.#dropContradicted();
    for (const entry of this.#sorted()) if (entry.seq > state.seq) await this.#apply(state, entry);
    state.seq = headSeq;
    const head = this.#entries.get(headSeq);
    const chain = {
      machineId: this.#machineId,
      head: { seq: headSeq, digest: head?.digest ?? new Uint8Array(32) },
      state,
      recent: this.#sorted(),
    };
    return await this.withPoints(chain);
  }

  /** Reads every retained point's own entry: those that can't be used are lost, and are taken out of the state. */
  async withPoints(chain: Chain): Promise<SalvagedChain> {
    for (const entry of chain.recent) this.#entries.set(entry.seq, entry);
    const points = [...chain.state.points.values()];
    await this.#readAll(points.map(({ seq }) => seq).filter((seq) => !this.#entries.has(seq)));
    const lost = points.filter((point) => !this.#isUsable(point)).map(({ seq }) => seq);
    for (const seq of lost) chain.state.points.delete(seq);
    const damage = this.#damage.map((found) => this.#withLostPoint(found, lost, chain.recent));
    return { ...chain, recent: this.#sorted(), damage, lostPoints: lost };
  }

  /** What a damaged entry takes with it: a point that a summary names, or one that it may have published. */
  #withLostPoint(found: Damage, lost: readonly number[], recent: readonly CheckedEntry[]): Damage {
    const seq = invertedNumberOf(found.object, chainPrefix(this.#machineId));
    if (seq === null) return found;
    if (lost.includes(seq)) return { ...found, points: [seq] };
    // Up to its base a summary has told which points there are.
    if (this.#entries.has(seq) || seq <= this.#baseSeq) return found;
    const opened = recent.some(({ tenure }) => tenure === seq);
    const pruned = recent.some(({ body }) => body.type === 'prune' && body.points.includes(seq));
    return opened || pruned ? found : { ...found, points: [seq], certain: false };
  }

  /** The state of the newest summary that can be used, with every entry after it read; an empty one when there is none. */
  async #base(headSeq: number): Promise<ChainState> {
    for (let to = headSeq; to > 0; ) {
      const from = Math.max(1, to - (to % summaryInterval));
      await this.#readAll(Array.from({ length: to - from + 1 }, (_, i) => from + i));
      const entry = this.#entries.get(from);
      const summary = isSummaryDue(from) && entry?.isVoid === false ? (await this.#control(entry)).summary : null;
      if (entry !== undefined && summary !== null) {
        // One more, to vouch for the summary's place.
        await this.#readAll([from - 1]);
        return ChainState.fromSummary(entry, summary);
      }
      to = from - 1;
    }
    return new ChainState();
  }

  async #readAll(seqs: readonly number[]): Promise<void> {
    const limit = pLimit(entriesInFlightMax);
    const read = await Promise.all(seqs.map((seq) => limit(() => this.#read(seq))));
    for (const entry of read) if (entry !== null) this.#entries.set(entry.seq, entry);
  }

  async #read(seq: number): Promise<CheckedEntry | null> {
    const name = chainEntryName(this.#machineId, seq);
    try {
      const entry = await readSignedEntry(this.#repo, this.#machineId, seq, this.#signal);
      this.#noteNewerTrust(entry);
      return entry;
    } catch (error) {
      this.#damage.push(damageOf(name, error));
      return null;
    }
  }

  /** Newer trust that can't be read is a reason for a note, not for giving up what its agent wrote. */
  #noteNewerTrust(entry: CheckedEntry): void {
    try {
      if (!entry.isVoid) checkTrustKnown(this.#repo, entry);
    } catch (error) {
      const object = trustName(entry.trust);
      if (!this.#damage.some((noted) => noted.object === object)) this.#damage.push(damageOf(object, error));
    }
  }

  /** An entry that its successor does not follow, and that follows none itself, has no place in this chain. */
  #dropContradicted(): void {
    for (const entry of this.#sorted()) {
      const name = chainEntryName(this.#machineId, entry.seq);
      const before = this.#entries.get(entry.seq - 1);
      const after = this.#entries.get(entry.seq + 1);
      const followsBefore = entry.seq === 1 || (before !== undefined && sameBytes(before.digest, entry.previous));
      const followed = after !== undefined && sameBytes(after.previous, entry.digest);
      if (followsBefore || followed) {
        if (before !== undefined && !followsBefore)
          this.#noteBreak(name, `does not follow entry ${before.seq} as it is stored`);
        continue;
      }
      if (before !== undefined || after !== undefined) {
        this.#entries.delete(entry.seq);
        this.#noteBreak(name, 'follows no entry beside it, and none follows it: it was replaced');
      } else
        this.#noteBreak(
          name,
          'is signed, but both entries beside it are missing or damaged: nothing vouches for its place',
        );
    }
  }

  #noteBreak(object: string, what: string): void {
    this.#damage.push({ object, code: 'CHAIN_BROKEN', what: `${object} ${what}`, points: [], certain: true });
  }

  #isUsable(point: RetainedPoint): boolean {
    const entry = this.#entries.get(point.seq);
    if (entry === undefined || entry.body.type !== 'publish') return false;
    if (sameBytes(entry.digest, point.digest)) return true;
    this.#noteBreak(
      chainEntryName(this.#machineId, point.seq),
      "is not the entry that the chain's summary names: it was replaced",
    );
    return false;
  }

  /** Without the rules of the protocol: with entries missing, they would refuse what is left. */
  async #apply(state: ChainState, entry: CheckedEntry): Promise<void> {
    state.seq = entry.seq;
    if (entry.isVoid) return;
    const { body } = entry;
    state.tenure = entry.tenure;
    if (body.type === 'begin' || body.type === 'rekey') state.epochs.set(body.epoch, body.keyRecordDigest);
    if (body.type === 'lock') state.lockUntilMs = Math.max(state.lockUntilMs, body.untilMs);
    if (body.type === 'prune') for (const seq of body.points) state.points.delete(seq);
    const control = await this.#control(entry);
    if (body.type !== 'publish') return;
    state.points.set(entry.seq, { seq: entry.seq, timeMs: entry.timeMs, digest: entry.digest });
    for (const birth of control.births) state.segments.put({ ...birth, dead: 0, birth: entry.seq, death: 0 });
    for (const { units, ...id } of control.deaths) {
      const life = state.segments.get(segmentKey(id));
      if (life === undefined) continue;
      const dead = Math.min(life.units, life.dead + units);
      state.segments.put({ ...life, dead, death: dead === life.units ? entry.seq : 0 });
    }
  }

  async #control(entry: CheckedEntry): Promise<Control> {
    try {
      return await readControl(this.#repo.target, entry, this.#signal);
    } catch (error) {
      const name =
        'inline' in entry.control
          ? chainEntryName(this.#machineId, entry.seq)
          : controlName(this.#machineId, entry.seq, entry.control.sha256);
      this.#damage.push(damageOf(name, error));
      return { births: [], deaths: [], summary: null };
    }
  }

  #sorted(): readonly CheckedEntry[] {
    return [...this.#entries.values()].sort((a, b) => a.seq - b.seq);
  }
}
