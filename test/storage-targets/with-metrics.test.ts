import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { StoreUnavailable } from '../../storage-targets/errors.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { newTargetMetrics, withMetrics } from '../../storage-targets/with-metrics.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { withFaults } from './faulty-target.ts';
import { newDirectory } from './new-directory.ts';

const never = new AbortController().signal;
const newTarget = async () => openFilesystemTarget({ directory: await newDirectory() });
const put = (target: StorageTarget, name: string, bytes: Uint8Array) =>
  target.putIfAbsent(name, bytes, { sha256: new Uint8Array(createHash('sha256').update(bytes).digest()) }, never);

async function drain(items: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of items);
}

it('metrics count requests, payload bytes, errors by code and time', async () => {
  const metrics = newTargetMetrics();
  const target = withMetrics(await newTarget(), metrics);
  await put(target, 'a', new Uint8Array(1_000));
  await put(target, 'a', new Uint8Array(1_000)).catch(() => undefined);
  await target.get('a', null, never);
  await target.get('a', { offset: 10, length: 20 }, never);
  await target.get('b', null, never).catch(() => undefined);
  await target.head('a', AbortSignal.abort()).catch(() => undefined);
  await drain(target.list('', {}, never));
  expect(metrics.put).toMatchObject({ requests: 2, bytes: 1_000, errors: { OBJECT_EXISTS: 1 } });
  expect(metrics.get).toMatchObject({ requests: 3, bytes: 1_020, errors: { OBJECT_NOT_FOUND: 1 } });
  expect(metrics.head).toMatchObject({ requests: 1, errors: { CANCELLED: 1 } });
  expect(metrics.list).toMatchObject({ requests: 1, errors: {} });
  expect(metrics.put.longestMs).toBeGreaterThan(0);
  expect(metrics.put.totalMs).toBeGreaterThanOrEqual(metrics.put.longestMs);
});

it('under all wrappers, metrics count each try that went out', async () => {
  const faulty = withFaults(await newTarget(), (operation, before) =>
    operation === 'put' && before < 2 ? { how: 'lose', error: new StoreUnavailable('no answer') } : null,
  );
  const { target, metrics } = wrapTarget(faulty, {
    inFlightMax: 4,
    uploadBytesPerSecond: null,
    downloadBytesPerSecond: null,
    retry: { random: () => 0 },
  });
  await put(target, 'a', new Uint8Array(100));
  expect(metrics.put).toMatchObject({ requests: 2, errors: { STORE_UNAVAILABLE: 1, OBJECT_EXISTS: 1 } });
  expect(metrics.get).toMatchObject({ requests: 1, bytes: 100 });
});
