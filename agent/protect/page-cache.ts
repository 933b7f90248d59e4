import type { MapGeometry, PageSource, PrefetchedPage } from '../../replica/block-map.ts';
import type { PageRef } from '../../replica/page.ts';
import type { MachineState } from '../state/machine-state.ts';

/** Pages from the local sealed cache of the head's map; what it lacks comes from the bucket, and is kept. */
export function cachedPages(state: MachineState, bucket: PageSource): PageSource {
  return {
    async readPage(
      geometry: MapGeometry,
      ref: PageRef,
      level: number,
      firstBlock: number,
      signal: AbortSignal,
    ): Promise<Uint8Array> {
      const cached = state.page(ref.digest);
      if (cached !== null) return cached;
      const page = await bucket.readPage(geometry, ref, level, firstBlock, signal);
      state.addPage(ref.digest, page);
      return page;
    },
    async prefetch(geometry: MapGeometry, pages: readonly PrefetchedPage[], signal: AbortSignal): Promise<void> {
      await bucket.prefetch(
        geometry,
        pages.filter(({ ref }) => !state.hasPage(ref.digest)),
        signal,
      );
    },
  };
}
