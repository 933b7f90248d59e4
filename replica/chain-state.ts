import { type ChainEntry, type EntryBody, summaryInterval } from './chain-entry.ts';
import type { AdoptedTenure, Control, RetainedPoint, SegmentLife, Summary } from './control.ts';
import { sameBytes } from './encoding.ts';
import { chainEntryName, type SegmentId, segmentKey } from './names.ts';
import { SegmentLives } from './segment-lives.ts';

/** What a replica's chain amounts to after some entry: docs/format.md §8. Pure: entries in, state out. */

/** A signed entry that breaks a rule of the protocol: a bug or a malicious agent. */
export class ChainInvalid extends Error {
  readonly code = 'CHAIN_INVALID';
  override readonly name = 'ChainInvalid';
}

/** The fields of an entry that change the state. */
export interface EntryEffect {
  readonly machineId: Uint8Array;
  readonly seq: number;
  readonly timeMs: number;
  readonly tenure: number;
  readonly signerKeyId: Uint8Array;
  /** Signed by a revoked key beyond its cut-off: takes its place in the chain and changes nothing. */
  readonly isVoid: boolean;
  readonly body: EntryBody;
}

export class ChainState {
  /** Last applied entry; 0: none. */
  seq = 0;
  tenure = 0;
  ownerKeyId = new Uint8Array(16);
  hasPublished = false;
  watermark = 0;
  /** Digest of revision 0 of each epoch's key record, by epoch, ascending. */
  readonly epochs = new Map<number, Uint8Array>();
  adopted: readonly AdoptedTenure[] = [];
  lockGeneration = 0;
  lockUntilMs = 0;
  readonly points = new Map<number, RetainedPoint>();
  #segments: SegmentLives;

  /** `segments`: how many are expected. */
  constructor(segments?: number) {
    this.#segments = new SegmentLives(segments);
  }

  /** The state after a summarised entry. `digest` is that entry's own. */
  static fromSummary(entry: Pick<ChainEntry, 'seq' | 'digest'>, summary: Summary): ChainState {
    const state = new ChainState(summary.segments.length);
    state.seq = entry.seq;
    state.tenure = summary.tenure;
    state.ownerKeyId = Uint8Array.from(summary.ownerKeyId);
    state.hasPublished = summary.hasPublished;
    state.watermark = summary.watermark;
    for (const { epoch, keyRecordDigest } of summary.epochs) state.epochs.set(epoch, keyRecordDigest);
    state.adopted = summary.adopted;
    state.lockGeneration = summary.lockGeneration;
    state.lockUntilMs = summary.lockUntilMs;
    for (const point of summary.points) state.points.set(point.seq, point);
    if (state.points.has(entry.seq)) state.setPointDigest(entry.seq, entry.digest);
    for (const life of summary.segments) state.segments.put(life);
    return state;
  }

  get segments(): SegmentLives {
    return this.#segments;
  }

  /** The key epoch in force; 0 before the first entry. */
  get epoch(): number {
    return [...this.epochs.keys()].at(-1) ?? 0;
  }

  get newestPoint(): RetainedPoint | null {
    return [...this.points.values()].at(-1) ?? null;
  }

  /** Fills in the digest of a point's own entry, which its own summary can't know. */
  setPointDigest(seq: number, digest: Uint8Array): void {
    const point = this.points.get(seq);
    if (point !== undefined) this.points.set(seq, { ...point, digest });
  }

  /** Throws ChainInvalid where the entry breaks a rule; the state is then useless. */
  apply(entry: EntryEffect, control: Control): void {
    if (entry.seq !== this.seq + 1) throw invalid(entry, `follows entry ${this.seq}`);
    if (!entry.isVoid) this.#applyCounting(entry, control);
    this.seq = entry.seq;
  }

  #applyCounting(entry: EntryEffect, control: Control): void {
    if (entry.body.type !== 'begin' && this.tenure === 0) throw invalid(entry, 'comes before any begin entry');
    if (entry.body.type !== 'begin' && entry.tenure !== this.tenure) {
      throw invalid(entry, `is of tenure ${entry.tenure}, but tenure ${this.tenure} is in force`);
    }
    const ownersOnly = entry.body.type === 'publish' || entry.body.type === 'rekey';
    if (ownersOnly && !sameBytes(entry.signerKeyId, this.ownerKeyId)) {
      throw invalid(entry, 'is signed by another agent than the one that opened the tenure');
    }
    this.#applyBody(entry, entry.body, control);
  }

  #applyBody(entry: EntryEffect, body: EntryBody, control: Control): void {
    switch (body.type) {
      case 'begin':
        this.#begin(entry, body.adopts, body.epoch, body.keyRecordDigest);
        return;
      case 'publish':
        if (body.epoch !== this.epoch)
          throw invalid(entry, `is sealed under key epoch ${body.epoch}, but ${this.epoch} is in force`);
        this.#publish(entry, body.watermark, control);
        return;
      case 'prune':
        this.#prune(entry, body.points);
        return;
      case 'lock':
        if (body.generation < this.lockGeneration)
          throw invalid(entry, `goes back to lock generation ${body.generation}`);
        this.lockGeneration = body.generation;
        this.lockUntilMs = Math.max(this.lockUntilMs, body.untilMs);
        return;
      case 'rekey':
        if (body.epoch <= this.epoch) throw invalid(entry, `goes back to key epoch ${body.epoch}`);
        this.epochs.set(body.epoch, body.keyRecordDigest);
        return;
    }
  }

  #begin(entry: EntryEffect, adopts: number | null, epoch: number, keyRecordDigest: Uint8Array): void {
    if (adopts !== null && (adopts === 0 || adopts !== this.tenure))
      throw invalid(entry, `adopts tenure ${adopts}, which it does not follow`);
    if (epoch < this.epoch) throw invalid(entry, `goes back to key epoch ${epoch}`);
    const known = this.epochs.get(epoch);
    if (known !== undefined && !sameBytes(known, keyRecordDigest))
      throw invalid(entry, `names another key record for epoch ${epoch}`);
    const inherited = this.hasPublished ? [] : this.adopted;
    this.adopted = adopts === null ? [] : [...inherited, { tenure: adopts, watermark: this.watermark }];
    this.tenure = entry.seq;
    this.hasPublished = false;
    this.watermark = 0;
    this.ownerKeyId = Uint8Array.from(entry.signerKeyId);
    this.epochs.set(epoch, keyRecordDigest);
  }

  #publish(entry: EntryEffect, watermark: number, control: Control): void {
    if (watermark < this.watermark) throw invalid(entry, 'lowers the watermark');
    for (const birth of control.births) {
      if (!this.#mayBeBorn(birth.tenure, birth.number, watermark)) {
        throw invalid(entry, `may not give birth to segment ${segmentKey(birth)}`);
      }
      const known = this.segments.has(segmentKey(birth));
      if (known || birth.units === 0)
        throw invalid(entry, `gives birth to segment ${segmentKey(birth)} again, or to an empty one`);
      this.segments.put({ ...birth, dead: 0, birth: entry.seq, death: 0 });
    }
    for (const { units, ...id } of control.deaths) {
      const life = this.segments.get(segmentKey(id));
      if (life === undefined || life.dead + units > life.units) {
        throw invalid(entry, `counts more dead units than segment ${segmentKey(id)} has`);
      }
      const dead = life.dead + units;
      this.segments.put({ ...life, dead, death: dead === life.units ? entry.seq : 0 });
    }
    this.points.set(entry.seq, { seq: entry.seq, timeMs: entry.timeMs, digest: new Uint8Array(32) });
    this.hasPublished = true;
    this.adopted = [];
    this.watermark = watermark;
  }

  #mayBeBorn(tenure: number, number: number, watermark: number): boolean {
    if (tenure === this.tenure) return number > this.watermark && number <= watermark;
    const adopted = this.adopted.find((candidate) => candidate.tenure === tenure);
    return adopted !== undefined && number > adopted.watermark;
  }

  #prune(entry: EntryEffect, seqs: readonly number[]): void {
    for (const seq of seqs) {
      if (seq === this.newestPoint?.seq) throw invalid(entry, `prunes the newest point ${seq}`);
      if (!this.points.delete(seq)) throw invalid(entry, `prunes point ${seq}, which is not there`);
    }
  }

  /** What entry `this.seq` carries when it is due for a summary. */
  summary(): Summary {
    const points = [...this.points.values()];
    return {
      tenure: this.tenure,
      ownerKeyId: this.ownerKeyId,
      hasPublished: this.hasPublished,
      watermark: this.watermark,
      epochs: [...this.epochs].map(([epoch, keyRecordDigest]) => ({ epoch, keyRecordDigest })),
      adopted: this.adopted,
      lockGeneration: this.lockGeneration,
      lockUntilMs: this.lockUntilMs,
      points: points.map((point) => (point.seq === this.seq ? { ...point, digest: new Uint8Array(32) } : point)),
      segments: this.#needed(() => undefined).list(),
    };
  }

  /** Forgets the segments that a summary leaves out, each of which is given to `forgotten`. */
  forgetUnneeded(forgotten: (life: SegmentLife) => void): void {
    this.#segments = this.#needed(forgotten);
  }

  #needed(unneeded: (life: SegmentLife) => void): SegmentLives {
    const points = [...this.points.values()];
    const needed = new SegmentLives(this.segments.size);
    for (const life of this.segments.values()) {
      if (isNeeded(life, points)) needed.put(life);
      else unneeded(life);
    }
    return needed;
  }

  /** Whether a segment that no publish has used may yet be published, by whoever writes after this state (rule R6). */
  mayYetBeBorn(id: SegmentId): boolean {
    if (id.tenure > this.tenure) return true;
    if (id.tenure === this.tenure) return id.number > this.watermark;
    return this.adopted.some(({ tenure, watermark }) => tenure === id.tenure && id.number > watermark);
  }
}

export function isSummaryDue(seq: number): boolean {
  return seq % summaryInterval === 0;
}

/** True while some retained point lies in [birth, death), or nothing has killed the segment yet. */
export function isNeeded(life: SegmentLife, points: readonly { readonly seq: number }[]): boolean {
  if (life.death === 0) return true;
  const first = points[firstIndexFrom(points, life.birth)];
  return first !== undefined && first.seq < life.death;
}

function invalid(entry: EntryEffect, what: string): ChainInvalid {
  return new ChainInvalid(`${chainEntryName(entry.machineId, entry.seq)} breaks the protocol: it ${what}`);
}

/** Index of the first point at or after `seq`; `points` are ascending. */
function firstIndexFrom(points: readonly { readonly seq: number }[], seq: number): number {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.seq ?? 0) < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}
