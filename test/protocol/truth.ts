import { createHash } from 'node:crypto';
import { type ChainEntry, parseEntry } from '../../replica/chain-entry.ts';
import type { ChainState } from '../../replica/chain-state.ts';
import { sameBytes } from '../../replica/encoding.ts';
import { chainPrefix, type SegmentId, segmentKey, segmentName, segmentsPrefix } from '../../replica/names.ts';
import type { MemoryWatch } from '../fakes/memory-target.ts';

/** What must hold, judged from the bytes in the store alone: entries, the tests' plain manifests, and segments. */

export type ViolationKind =
  | 'segment lost'
  | 'segment altered'
  | 'chain torn'
  | 'fenced writer published'
  | 'two publishers of one entry'
  | 'fenced, yet published'
  | 'dead count'
  | 'summary'
  | 'reader lost a segment'
  | 'copy lost a segment'
  | 'not locked'
  | 'garbage kept'
  // An actor or the judge met what the product itself refuses.
  | 'chain refused'
  | 'error';

export class Violation extends Error {
  override readonly name = 'Violation';
  readonly kind: ViolationKind;
  constructor(kind: ViolationKind, detail: string) {
    super(`${kind}: ${detail}`);
    this.kind = kind;
  }
}

/** One unit of a segment, as a point of these tests uses it. */
export interface Unit extends SegmentId {
  readonly unit: number;
  /** SHA-256 of the segment, hex. */
  readonly sha256: string;
}

/** A recovery point: what is in each slot of the test's disk. */
export type Slots = ReadonlyMap<number, Unit>;

export function encodeManifest(attempt: string, slots: Slots): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ attempt, slots: [...slots] }));
}

export function parseManifest(bytes: Uint8Array): { readonly attempt: string; readonly slots: Slots } {
  const { attempt, slots }: { attempt: string; slots: [number, Unit][] } = JSON.parse(new TextDecoder().decode(bytes));
  return { attempt, slots: new Map(slots) };
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Segments above its watermark may yet be published. */
export interface OpenTenure {
  readonly tenure: number;
  readonly watermark: number;
}

/** A `lock` entry that was written without locking anything says no more than this. */
export const emptyLockMs = 5;

/** What only the store knows. */
export interface StoreFacts {
  now(): number;
  /** Until when an object is locked; 0: it is not. */
  lockedUntil(name: string): number;
  /** Of the root key: what was put more recently is kept, whoever pruned it. */
  readonly floorMs: number;
}

export class Truth implements MemoryWatch {
  readonly entries: ChainEntry[] = [];
  /** Published and not pruned, ascending. */
  readonly points = new Map<number, Slots>();
  /** Every point there ever was. */
  readonly published = new Map<number, Slots>();
  readonly attempts = new Set<string>();
  readonly #segments = new Map<string, { readonly sha256: string; readonly units: number }>();
  readonly #unitsOf = new Map<string, number>();
  readonly #repositoryId: Uint8Array;
  readonly #machineId: Uint8Array;
  readonly #found: (violation: Violation) => void;
  readonly #facts: StoreFacts;
  readonly #publishedAt = new Map<number, number>();
  #begin: ChainEntry | null = null;
  #open: readonly OpenTenure[] = [];

  constructor(
    repositoryId: Uint8Array,
    machineId: Uint8Array,
    facts: StoreFacts,
    found: (violation: Violation) => void,
  ) {
    this.#facts = facts;
    this.#repositoryId = repositoryId;
    this.#machineId = machineId;
    this.#found = found;
  }

  put(name: string, bytes: Uint8Array): void {
    if (name.startsWith(segmentsPrefix(this.#machineId))) {
      this.#segments.set(name, { sha256: sha256Hex(bytes), units: bytes[0] ?? 0 });
    } else if (name.startsWith(chainPrefix(this.#machineId))) {
      const seq = Number.MAX_SAFE_INTEGER - Number(name.slice(-16));
      this.#entered(parseEntry(this.#repositoryId, this.#machineId, seq, bytes));
    }
  }

  deleted(name: string): void {
    this.#segments.delete(name);
    for (const [seq, slots] of this.published) {
      if (!this.points.has(seq) && !this.#isUnderTheFloor(seq)) continue;
      const hurt = [...slots.values()].find((unit) => segmentName(this.#machineId, unit) === name);
      if (hurt !== undefined) this.#report('segment lost', `${segmentKey(hurt)} of point ${seq} was deleted`);
    }
  }

  has(unit: Unit): boolean {
    return this.#segments.get(segmentName(this.#machineId, unit))?.sha256 === unit.sha256;
  }

  #isUnderTheFloor(seq: number): boolean {
    const { floorMs, now } = this.#facts;
    return floorMs > 0 && (this.#publishedAt.get(seq) ?? 0) > now() - floorMs;
  }

  /** Points that are retained after entry `head`. */
  pointsAt(head: number): ReadonlyMap<number, Slots> {
    const points = new Map([...this.published].filter(([seq]) => seq <= head));
    for (const { seq, body } of this.entries)
      if (body.type === 'prune' && seq <= head) for (const point of body.points) points.delete(point);
    return points;
  }

  /** The tenure in force, and those that it adopted and may still use. */
  get open(): readonly OpenTenure[] {
    return this.#open;
  }

  get segmentNames(): readonly string[] {
    return [...this.#segments.keys()];
  }

  #entered(entry: ChainEntry): void {
    const previous = this.entries.at(-1);
    if (entry.seq !== this.entries.length + 1 || (previous && !sameBytes(previous.digest, entry.previous))) {
      this.#report('chain torn', `entry ${entry.seq} does not follow entry ${this.entries.length}`);
      return;
    }
    this.entries.push(entry);
    if (entry.body.type === 'begin') this.#begins(entry, entry.body.adopts !== null);
    if (entry.body.type === 'publish') {
      this.#open = [{ tenure: entry.tenure, watermark: entry.body.watermark }];
      this.#publishes(entry, entry.body.sealedManifest);
    }
    if (entry.body.type === 'lock') for (const seq of this.points.keys()) this.#checkLocked(seq, entry.body.untilMs);
    if (entry.body.type === 'prune') for (const seq of entry.body.points) this.points.delete(seq);
  }

  #begins(entry: ChainEntry, adopts: boolean): void {
    this.#begin = entry;
    this.#open = [{ tenure: entry.seq, watermark: 0 }, ...(adopts ? this.#open : [])];
  }

  #publishes(entry: ChainEntry, manifest: Uint8Array): void {
    const { attempt, slots } = parseManifest(manifest);
    if (entry.tenure !== this.#begin?.seq || !sameBytes(entry.signerKeyId, this.#begin.signerKeyId)) {
      this.#report('fenced writer published', `entry ${entry.seq} of tenure ${entry.tenure} in ${this.#begin?.seq}`);
    }
    this.attempts.add(attempt);
    this.points.set(entry.seq, slots);
    this.published.set(entry.seq, slots);
    this.#publishedAt.set(entry.seq, this.#facts.now());
    if (entry.body.type === 'publish') this.#checkLocked(entry.seq, entry.body.immutableUntilMs);
    for (const unit of slots.values()) this.#checkUnit(entry.seq, unit);
  }

  #checkLocked(seq: number, untilMs: number): void {
    if (untilMs <= emptyLockMs) return;
    for (const unit of this.points.get(seq)?.values() ?? []) {
      const locked = this.#facts.lockedUntil(segmentName(this.#machineId, unit));
      if (locked < untilMs)
        this.#report('not locked', `${segmentKey(unit)} of point ${seq} until ${locked}, and not until ${untilMs}`);
    }
  }

  #checkUnit(seq: number, unit: Unit): void {
    const segment = this.#segments.get(segmentName(this.#machineId, unit));
    const where = `${segmentKey(unit)} of point ${seq}`;
    if (segment === undefined) this.#report('segment lost', `${where} was not there when it was published`);
    else if (segment.sha256 !== unit.sha256) this.#report('segment altered', `${where} holds other bytes`);
    if (segment !== undefined) this.#unitsOf.set(segmentKey(unit), segment.units);
  }

  /** Compares what the real state says after publish `seq` with what the manifests say. */
  checkLives(state: ChainState, seq: number): void {
    const used = new Map<string, number>();
    for (const unit of this.published.get(seq)?.values() ?? []) {
      used.set(segmentKey(unit), (used.get(segmentKey(unit)) ?? 0) + 1);
    }
    for (const key of used.keys()) {
      if (!state.segments.has(key)) this.#report('dead count', `${key} is used by point ${seq}, but was never born`);
    }
    for (const [key, { units, dead, birth, death }] of state.segments) {
      const alive = used.get(key) ?? 0;
      if (units !== this.#unitsOf.get(key) || units - dead !== alive || (death !== 0) !== (alive === 0)) {
        this.#report('dead count', `${key} at point ${seq}: ${dead} of ${units} dead, but ${alive} are in use`);
      }
      if (birth > seq || !this.#isUsed(key, birth)) this.#report('dead count', `${key} is not born at ${birth}`);
    }
  }

  #isUsed(key: string, seq: number): boolean {
    return [...(this.published.get(seq)?.values() ?? [])].some((unit) => segmentKey(unit) === key);
  }

  #report(kind: ViolationKind, detail: string): void {
    this.#found(new Violation(kind, detail));
  }
}
