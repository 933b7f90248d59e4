import { stat } from 'node:fs/promises';
import { type ChangeWatch, watchFile } from './change-watch.ts';

/** The image first, then all that it was laid over or is split into. */
export async function watchFiles(paths: readonly string[], signal: AbortSignal): Promise<ChangeWatch> {
  const watches: (ChangeWatch & { readonly path: string })[] = [];
  for (const path of paths) {
    const watch = await watchFile(path, await stat(path, { bigint: true }), signal);
    watches.push({ ...watch, path });
  }
  return {
    liveBecause: null,
    async whatChanged() {
      for (const { path, whatChanged } of watches) {
        const what = await whatChanged();
        if (what !== null) return path === paths[0] ? what : `of its part ${path}: ${what}`;
      }
      return null;
    },
  };
}
