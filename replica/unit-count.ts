import type { Birth, Death, SegmentLife } from './control.ts';
import { compareSegments, type SegmentId, segmentKey } from './names.ts';
import type { PageRef } from './page.ts';

/**
 * Counts, for one publish, the units (blocks, pages, attachment chunks) that the newest point used and the next does not,
 * and what the publish's births brought and use. Deaths follow from both: docs/format.md §8.2.
 */
export class UnitCount {
  readonly #dropped = new Map<string, { readonly id: SegmentId; units: number }>();
  readonly #droppedPages: Uint8Array[] = [];
  readonly #used = new Map<string, number>();
  readonly #born = new Map<string, Birth>();

  /** A segment that became durable in this run, or that an adopted tenure left behind. */
  born(birth: Birth): void {
    this.#born.set(segmentKey(birth), birth);
  }

  /** A unit that the new point refers to and the newest one does not. */
  use(id: SegmentId, units = 1): void {
    const key = segmentKey(id);
    this.#used.set(key, (this.#used.get(key) ?? 0) + units);
  }

  /** A unit that the newest point refers to and the new one does not. */
  drop(id: SegmentId, units = 1): void {
    const key = segmentKey(id);
    const entry = this.#dropped.get(key) ?? { id: { tenure: id.tenure, number: id.number }, units: 0 };
    entry.units += units;
    this.#dropped.set(key, entry);
  }

  /**
   * Everything that the newest point refers to, but for what is `counted` elsewhere, by segment: the chain counts it, so that no map
   * needs to be opened.
   */
  dropAll(segments: Iterable<SegmentLife>, counted: ReadonlyMap<string, number> = new Map()): void {
    for (const life of segments) {
      const rest = life.units - life.dead - (counted.get(segmentKey(life)) ?? 0);
      if (rest > 0) this.drop(life, rest);
    }
  }

  /** Takes over what was counted for one disk. */
  add(other: UnitCount): void {
    for (const [key, units] of other.#used) this.#used.set(key, (this.#used.get(key) ?? 0) + units);
    for (const { id, units } of other.#dropped.values()) this.drop(id, units);
    this.#droppedPages.push(...other.#droppedPages);
  }

  /** A page that the new map no longer has. */
  dropPage(ref: PageRef): void {
    this.drop(ref);
    this.#droppedPages.push(ref.digest);
  }

  /** A page that the new map no longer has, and that is counted with all else of its map. */
  forgetPage({ digest }: PageRef): void {
    this.#droppedPages.push(digest);
  }

  /** Digests of the pages that the new maps no longer have. */
  get droppedPages(): readonly Uint8Array[] {
    return this.#droppedPages;
  }

  /** Segments that the new point uses for the first time; one that it does not use at all stays unpublished. */
  births(): readonly Birth[] {
    return [...this.#born.values()].filter((birth) => this.#used.has(segmentKey(birth))).sort(compareSegments);
  }

  deaths(): readonly Death[] {
    const unused = this.births()
      .map((birth) => ({ ...idOf(birth), units: birth.units - (this.#used.get(segmentKey(birth)) ?? 0) }))
      .filter((death) => death.units > 0);
    const dropped = [...this.#dropped.values()].map(({ id, units }) => ({ ...idOf(id), units }));
    return [...unused, ...dropped].sort(compareSegments);
  }

  /** Segments that the new point refers to but nobody reported as born: a bug, caught before publishing. */
  unborn(): readonly string[] {
    return [...this.#used.keys()].filter((key) => !this.#born.has(key));
  }
}

function idOf(id: SegmentId): SegmentId {
  return { tenure: id.tenure, number: id.number };
}
