import type { MapGeometry, PageSource, PrefetchedPage } from '../../replica/block-map.ts';
import { toHex } from '../../replica/encoding.ts';
import type { PageRef } from '../../replica/page.ts';

/** More that were fetched ahead than this, and never read, are forgotten. */
const aheadMax = 8192;

/** Pages that were opened, kept up to so many bytes. Those who ask for one that is on its way wait for it together. */
export class KeptPages implements PageSource {
  readonly #bucket: PageSource;
  readonly #bytesMax: number;
  readonly #pages = new Map<string, Uint8Array>();
  readonly #onTheirWay = new Map<string, Promise<Uint8Array>>();
  /** Fetched, and not opened yet. */
  readonly #ahead = new Set<string>();
  #bytes = 0;

  constructor(bucket: PageSource, bytesMax: number) {
    this.#bucket = bucket;
    this.#bytesMax = bytesMax;
  }

  async readPage(
    geometry: MapGeometry,
    ref: PageRef,
    level: number,
    firstBlock: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const key = toHex(ref.digest);
    const kept = this.#pages.get(key);
    if (kept !== undefined) {
      this.#pages.delete(key);
      this.#pages.set(key, kept);
      return kept;
    }
    const coming = this.#onTheirWay.get(key);
    if (coming !== undefined) return await coming;
    this.#ahead.delete(key);
    const reading = this.#bucket.readPage(geometry, ref, level, firstBlock, signal);
    this.#onTheirWay.set(key, reading);
    try {
      const page = await reading;
      this.#keep(key, page);
      return page;
    } finally {
      this.#onTheirWay.delete(key);
    }
  }

  async prefetch(geometry: MapGeometry, pages: readonly PrefetchedPage[], signal: AbortSignal): Promise<void> {
    const missing = pages.filter(({ ref }) => !this.has(ref));
    await this.#bucket.prefetch(geometry, missing, signal);
    if (this.#ahead.size > aheadMax) this.#ahead.clear();
    for (const { ref } of missing) this.#ahead.add(toHex(ref.digest));
  }

  /** Or it is on its way, or was fetched with others. */
  has({ digest }: PageRef): boolean {
    const key = toHex(digest);
    return this.#pages.has(key) || this.#onTheirWay.has(key) || this.#ahead.has(key);
  }

  #keep(key: string, page: Uint8Array): void {
    this.#pages.set(key, page);
    this.#bytes += page.length;
    for (const [oldest, { length }] of this.#pages) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#pages.delete(oldest);
      this.#bytes -= length;
    }
  }
}
