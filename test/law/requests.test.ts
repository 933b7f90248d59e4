import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PublishedPoint } from '../../agent/protect/protect-machine.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { newTargetMetrics, type TargetMetrics, withMetrics } from '../../storage-targets/with-metrics.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { filled } from './guest.ts';

const mebibyte = 2 ** 20;
const segmentBytes = 8 * mebibyte;

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/** Requests by what they are for: `chain` and `keys`, the repository itself, and all others. */
interface Requests {
  readonly chain: TargetMetrics;
  readonly keys: TargetMetrics;
  readonly repository: TargetMetrics;
  readonly rest: TargetMetrics;
}

function countRequests(target: StorageTarget): { readonly target: StorageTarget; readonly requests: Requests } {
  const requests = {
    chain: newTargetMetrics(),
    keys: newTargetMetrics(),
    repository: newTargetMetrics(),
    rest: newTargetMetrics(),
  };
  const counted = Object.fromEntries(
    Object.entries(requests).map(([kind, metrics]) => [kind, withMetrics(target, metrics)]),
  );
  const of = (name: string): StorageTarget => {
    const kind = /\/(chain|keys)\//.exec(name)?.[1] ?? (name.startsWith('machines/') ? 'rest' : 'repository');
    return counted[kind] ?? target;
  };
  return {
    requests,
    target: {
      ...target,
      putIfAbsent: (name, bytes, options, signal) => of(name).putIfAbsent(name, bytes, options, signal),
      get: (name, range, signal) => of(name).get(name, range, signal),
      head: (name, signal) => of(name).head(name, signal),
      list: (prefix, options, signal) => of(prefix).list(prefix, options, signal),
    },
  };
}

const reads = (metrics: TargetMetrics): number => metrics.get.requests + metrics.head.requests + metrics.list.requests;

async function countedRun(
  rig: ReplicaRig,
  machine: ModelMachine,
): Promise<{ readonly published: PublishedPoint; readonly requests: Requests; readonly kmsCalls: number }> {
  const { target, requests } = countRequests(rig.target);
  let kmsCalls = 0;
  const counting =
    <Args extends unknown[], Result>(call: (...args: Args) => Result) =>
    (...args: Args): Result => {
      kmsCalls++;
      return call(...args);
    };
  const { provider: kms } = rig;
  const provider = {
    ...kms,
    generateDataKey: counting(kms.generateDataKey),
    wrap: counting(kms.wrap),
    unwrap: counting(kms.unwrap),
  };
  const published = await rig.protect(machine, { target, provider, segmentBytes });
  return { published, requests, kmsCalls };
}

/** Segments and the publish entry; `begin` and key record are counted apart. */
function expectFewPuts(requests: Requests, uploadedBytes: number): void {
  const puts = requests.rest.put.requests + requests.chain.put.requests - 1;
  expect(puts).toBeLessThanOrEqual(Math.ceil(uploadedBytes / segmentBytes) + 2);
  expect(requests.repository.put.requests).toBe(0);
}

test('a point costs a put for every 8 MiB and two more, four reads and one call to the KMS', async () => {
  const store = new MemoryStore();
  await using rig = await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true });
  const machine = new ModelMachine();
  machine.addDisk('root', 40 * mebibyte).write(0, filled(18 * mebibyte, 1, true));
  machine.addDisk('data', 20 * mebibyte).write(0, filled(10 * mebibyte, 2, false));
  machine.attachments.set('nvram', filled(300_000, 3, true));

  const seed = await countedRun(rig, machine);
  expect(seed.published.manifest.uploadedBytes).toBeGreaterThan(18 * mebibyte);
  expectFewPuts(seed.requests, seed.published.manifest.uploadedBytes);
  expect(seed.requests.keys.put.requests).toBe(1);
  expect(seed.kmsCalls).toBe(1);

  for (const [at, length] of [
    [0, 10],
    [1_000_000, 9 * mebibyte],
    [25 * mebibyte, 70_000],
  ] as const) {
    machine.disks.get('root')?.write(at, filled(length, at + 7, true));
    const sync = await countedRun(rig, machine);
    expectFewPuts(sync.requests, sync.published.manifest.uploadedBytes);
    expect(reads(sync.requests.rest) + reads(sync.requests.keys)).toBeLessThanOrEqual(4);
    expect(reads(sync.requests.rest), 'the map comes from the local cache').toBe(0);
    expect(sync.kmsCalls).toBe(1);
  }

  const idle = await countedRun(rig, machine);
  expect(idle.published.manifest.uploadedBytes).toBe(0);
  expect(idle.requests.rest.put.requests).toBe(0);
});

test('a new key epoch costs one call to the KMS, and no read of the old one', async () => {
  await using rig = await ReplicaRig.create(openMemoryTarget(new MemoryStore()), { workers, inMemory: true });
  const machine = new ModelMachine();
  machine.addDisk('root', mebibyte).write(0, filled(mebibyte, 1, true));
  await countedRun(rig, machine);
  rig.now = () => Date.now() + 31 * 24 * 3600 * 1000;
  machine.disks.get('root')?.write(0, filled(100_000, 2, true));
  const { published, kmsCalls, requests } = await countedRun(rig, machine);
  expect(kmsCalls).toBe(1);
  expect(requests.keys.put.requests).toBe(1);
  expect(reads(requests.rest)).toBe(0);
  const content = machine.newest.get('root')?.bytes() ?? new Uint8Array();
  expect(Buffer.compare(await rig.restore(published.point, 'root', [rig.recoveryProvider]), content)).toBe(0);
});
