import { isDamage } from '../../replica/damage.ts';
import { compareSegments, type SegmentId, segmentKey } from '../../replica/names.ts';
import type { Finding } from './finding.ts';
import { type RecordId, RecordSet } from './record-set.ts';

/** Collects what is wrong, object by object, so that one error never stops the rest. */

/** A store that fails this often is away: going on would only call everything unchecked. */
const uncheckedMax = 64;
const uncheckedCodes: ReadonlySet<string> = new Set([
  'ACCESS_DENIED',
  'ARCHIVED',
  'KEY_REFUSED',
  'REQUEST_REFUSED',
  'STORE_CONFLICT',
  'STORE_THROTTLED',
  'STORE_UNAVAILABLE',
]);

/** A finding in the making. */
export interface Mark {
  readonly object: string;
  readonly code: string;
  readonly what: string;
  readonly kind: Finding['kind'];
  readonly points: Set<number>;
  certain: boolean;
  /** Segments that it is about. */
  readonly segments: Map<string, SegmentId>;
  /** Which of their records can't be read; what none of these is in a segment, no point misses. */
  readonly records: RecordSet;
  /** Points that it hurts can't be looked at as a whole: a page or more that leads to their blocks is not readable. */
  hidesBlocks: boolean;
}

export class DamageRegister {
  readonly #marks = new Map<string, Mark>();
  readonly #bySegment = new Map<string, Mark[]>();
  readonly #refusedObjects = new Set<string>();
  #firstRefusal: { readonly error: unknown } | null = null;

  /** Rethrows what says nothing about one object: a bug, a cancellation, a store that is away. */
  note(object: string, error: unknown, points: Iterable<number> = [], certain = true): Mark {
    const kind = isDamage(error) ? 'damaged' : 'unchecked';
    const code = codeOf(error);
    if (kind === 'unchecked' && !uncheckedCodes.has(code)) throw error;
    const mark = this.add({ object, code, what: messageOf(error), points, certain, kind });
    if (kind === 'unchecked') this.#refused(object, error);
    return mark;
  }

  #refused(object: string, error: unknown): void {
    this.#firstRefusal ??= { error };
    this.#refusedObjects.add(object);
    if (this.#refusedObjects.size > uncheckedMax) throw error;
  }

  /** The first error because of which something could not be looked at. */
  get firstRefusal(): { readonly error: unknown } | null {
    return this.#firstRefusal;
  }

  /** A second finding with the same object and code joins the first. */
  add(found: Omit<Finding, 'points'> & { readonly points: Iterable<number> }): Mark {
    const key = `${found.object}\0${found.code}`;
    const fresh: Mark = {
      ...found,
      points: new Set(),
      segments: new Map(),
      records: new RecordSet(),
      hidesBlocks: false,
    };
    const mark = this.#marks.get(key) ?? fresh;
    this.#marks.set(key, mark);
    for (const point of found.points) mark.points.add(point);
    return mark;
  }

  /** A segment as a whole: at these levels, points that lie within its life may need what is damaged. */
  noteSegment(id: SegmentId, object: string, error: unknown, points: Iterable<number>): void {
    this.#link(id, this.note(object, error, points, false));
  }

  /** A record that can't be read; `object` is the segment, or the key record without which it can't be opened. */
  noteRecord(at: RecordId, object: string, error: unknown): Mark {
    const mark = this.note(object, error);
    mark.records.add(at);
    this.#link(at, mark);
    return mark;
  }

  /** A page that can't be read: what lies below it is unknown. */
  notePage(at: RecordId, object: string, error: unknown): void {
    this.noteRecord(at, object, error).hidesBlocks = true;
  }

  /** What is wrong with this record. */
  marksOf(at: RecordId): readonly Mark[] {
    return (this.#bySegment.get(segmentKey(at)) ?? []).filter((mark) => mark.records.has(at));
  }

  marksOfSegment(id: SegmentId): readonly Mark[] {
    return this.#bySegment.get(segmentKey(id)) ?? [];
  }

  isDamaged(id: SegmentId): boolean {
    return this.marksOfSegment(id).some(({ kind }) => kind === 'damaged');
  }

  get marks(): readonly Mark[] {
    return [...this.#marks.values()];
  }

  /** Points of which not every block could be found, so that nothing was said of those. */
  get blindPoints(): ReadonlySet<number> {
    return new Set(this.marks.flatMap(({ hidesBlocks, points }) => (hidesBlocks ? [...points] : [])));
  }

  /** Damaged segments that this point needs, or may need. */
  damagedSegments(point: number): readonly SegmentId[] {
    const found = new Map<string, SegmentId>();
    for (const mark of this.#marks.values())
      if (mark.kind === 'damaged' && mark.points.has(point)) for (const [key, id] of mark.segments) found.set(key, id);
    return [...found.values()].sort(compareSegments);
  }

  #link(id: SegmentId, mark: Mark): void {
    const key = segmentKey(id);
    if (mark.segments.has(key)) return;
    mark.segments.set(key, { tenure: id.tenure, number: id.number });
    this.#bySegment.set(key, [...(this.#bySegment.get(key) ?? []), mark]);
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
