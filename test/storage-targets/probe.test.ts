import { beforeEach, expect, it } from 'vitest';
import { ObjectExists, StoreNotAtomic } from '../../storage-targets/errors.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import { probePutIfAbsent, probeRefusal } from '../../storage-targets/probe.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { newDirectory } from './new-directory.ts';

const never = new AbortController().signal;

let good: StorageTarget;
beforeEach(async () => {
  good = await openFilesystemTarget({ directory: await newDirectory() });
});

const puttingWith = (putIfAbsent: StorageTarget['putIfAbsent']): StorageTarget => ({
  ...good,
  putIfAbsent,
  [Symbol.asyncDispose]: () => good[Symbol.asyncDispose](),
});
const overwrite: StorageTarget['putIfAbsent'] = async (name, bytes, options, signal) => {
  await good.delete([name], signal);
  await good.putIfAbsent(name, bytes, options, signal);
};

it('a store that ignores the condition is refused', async () => {
  let turn = Promise.resolve();
  const ignoring = puttingWith((...args) => (turn = turn.then(() => overwrite(...args))));
  await expect(probePutIfAbsent(ignoring, never)).rejects.toThrow(StoreNotAtomic);
  await expect(probeRefusal(ignoring, 'probe/fixed', never)).rejects.toThrow(StoreNotAtomic);
});

it('a store where two racing puts win is refused', async () => {
  let wins = 0;
  const twoWin = puttingWith(async (...args) => {
    if (wins++ < 2) return;
    await good.putIfAbsent(...args);
  });
  await expect(probePutIfAbsent(twoWin, never)).rejects.toThrow(StoreNotAtomic);
});

it('a store where nobody wins is refused', async () => {
  const refusing = puttingWith(() => Promise.reject(new ObjectExists('always')));
  await expect(probePutIfAbsent(refusing, never)).rejects.toThrow(StoreNotAtomic);
});

it('a store that says no and overwrites all the same is refused', async () => {
  let turn = Promise.resolve();
  let puts = 0;
  const lying = puttingWith(async (...args) => {
    const first = puts++ === 0;
    turn = turn.then(() => overwrite(...args));
    await turn;
    if (!first) throw new ObjectExists('exists');
  });
  await expect(probePutIfAbsent(lying, never)).rejects.toThrow(StoreNotAtomic);
  await expect(probeRefusal(lying, 'probe/fixed', never)).rejects.toThrow();
});
