/**
 * Loaded into a failkit process by `--import`: changes its sources as they are loaded. What, is in the environment variable
 * FAILKIT_PATCHES. A text that is not found is an error, so that a patch can't stop working unnoticed.
 */
import { registerHooks } from 'node:module';
import type { SourcePatch } from './source-patch.ts';

const patches: readonly SourcePatch[] = JSON.parse(process.env.FAILKIT_PATCHES ?? '[]');

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const wanted = patches.filter(({ file }) => url.endsWith(`/${file}`));
    if (wanted.length === 0 || loaded.source === undefined) return loaded;
    return { ...loaded, source: wanted.reduce(patched, String(loaded.source)) };
  },
});

function patched(source: string, { file, from, to }: SourcePatch): string {
  if (source.split(from).length !== 2) throw new Error(`${file} does not hold exactly once: ${from}`);
  return source.replace(from, () => to);
}
