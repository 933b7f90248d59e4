import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CliWorld } from './cli-world.ts';
import type { Loss } from './lossy-disk.ts';
import { examine, filesOf, type History, type Moment, recordHistory, whyNoStrace } from './power-loss.ts';
import type { SourcePatch } from './source-patch.ts';

const needs = whyNoStrace();
const timeout = 3_600_000;
/** Every n-th of the different remains is given to a run of the agent; all of them are searched for objects that are lost. */
const strides: Readonly<Record<Loss, number>> = { dropped: 1, names: 4, torn: 4, last: 4 };
/** Most of init are puts that try the store, and each look at their remains makes an RSA key. */
const initStride = 20;

/** Each takes one sync away. What then can be lost must be found to be lost. */
const withoutSync: readonly (SourcePatch & { readonly what: string; readonly found: RegExp })[] = [
  {
    what: "an object's bytes are not synced",
    file: 'storage-targets/filesystem.ts',
    from: 'await writeAll(handle, bytes, pace);\n    await handle.sync();',
    to: 'await writeAll(handle, bytes, pace);',
    found: /lost /,
  },
  {
    what: "an object's name is not synced",
    file: 'storage-targets/filesystem.ts',
    from: 'await syncFolder(join(directory, folderOf(name)));\n  if (!taken) return;',
    to: 'if (!taken) return;',
    found: /lost /,
  },
  {
    what: "a folder's name is not synced",
    file: 'storage-targets/durable-folders.ts',
    from: 'await syncFolder(join(this.#root, parent));',
    to: '',
    found: /lost /,
  },
  {
    what: 'the state database is not synced',
    file: 'agent/state/state-database.ts',
    from: 'PRAGMA synchronous = FULL',
    to: 'PRAGMA synchronous = OFF',
    found: /the next run failed/,
  },
];

describe.skipIf(needs !== null)(needs ?? 'power loss', { timeout }, () => {
  let world: CliWorld;
  let history: History;
  beforeAll(async () => {
    world = new CliWorld();
    history = await recordHistory(world);
  }, timeout);
  afterAll(() => world?.[Symbol.dispose]());

  it('at any moment loses nothing that was published, and the next run succeeds', async () => {
    const stride = ({ runs }: Moment, loss: Loss): number => (runs === 0 ? initStride : strides[loss]);
    const count = await examine(history, stride, checkRemains);
    process.stdout.write(`power loss: ${count.moments} moments, ${count.examined} of them examined with a run\n`);
    expect(count.examined).toBeGreaterThan(100);
  });

  it('finds no shared memory of the state database, which would not outlast it', () => {
    const files = filesOf(history);
    expect(files.some((file) => file.endsWith('state.sqlite-wal'))).toBe(true);
    expect(files.filter((file) => file.endsWith('-shm'))).toEqual([]);
  });

  it.each(withoutSync)('is found to lose something when $what', async ({ found, ...patch }) => {
    using own = new CliWorld();
    const patched = await recordHistory(own, [patch]);
    const stride = ({ runs }: Moment, loss: Loss): number => (runs === 0 || loss !== 'dropped' ? Infinity : 1);
    await expect(examine(patched, stride, checkRemains)).rejects.toThrow(found);
  });
});

async function checkRemains(world: CliWorld, { runs, points }: Moment): Promise<void> {
  if (runs === 0) {
    const { exitCode, stdout } = await world.run(['init', '--kit', world.path('kit-2')]);
    if (exitCode !== 0 && !stdout.includes('REPOSITORY_EXISTS')) throw new Error(`init failed: ${stdout}`);
    return;
  }
  const { point } = await world.publishNext();
  await world.requirePoints(new Map([...points, [point, world.imageSha256]]));
}
