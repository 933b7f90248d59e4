import { beforeEach, describe, expect, it } from 'vitest';
import { KeyDisabled, KeyRefused, KeyServiceUnavailable } from '../../../crypto/errors.ts';
import { generateRecoveryKey, recoveryKeyFromPem } from '../../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import { putTrust } from '../../../replica/create-repository.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';
import { RigWorkers } from '../../rig/rig-workers.ts';

it('runs that die before they begin cost an epoch each, and never the next run', async () => {
  await using workers = new RigWorkers();
  const store = new MemoryStore();
  await using rig = await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true });
  const machine = new ModelMachine();
  machine.addDisk('root', 100_000);
  const noChain = openMemoryTarget(store, async ({ kind, name }) => ({
    kind: kind === 'put' && name.includes('/chain/') ? 'lost' : 'done',
  }));
  for (let i = 0; i < 12; i++) await expect(rig.protect(machine, { target: noChain })).rejects.toThrow('no answer');
  let kmsCalls = 0;
  const provider: typeof rig.provider = {
    ...rig.provider,
    generateDataKey: (context, signal) => {
      kmsCalls++;
      return rig.provider.generateDataKey(context, signal);
    },
  };
  await rig.protect(machine, { provider });
  expect(kmsCalls).toBe(1);
});

it('the first point after the recovery key was replaced opens with the new kit alone', async () => {
  await using workers = new RigWorkers();
  await using rig = await ReplicaRig.create(openMemoryTarget(new MemoryStore()), { workers, inMemory: true });
  const machine = new ModelMachine();
  machine.addDisk('root', 100_000);
  const before = await rig.protect(machine);
  const { trust } = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), rig.signal);
  const { digest, ...fields } = trust;
  const replaced = await generateRecoveryKey();
  const next = { ...fields, n: 1, previous: digest, recoveryPublicKey: replaced.publicKey };
  await putTrust(rig.target, next, rig.root, rig.signal);
  const after = await rig.protect(machine);
  const newKit = recoveryKeyFromPem(replaced.privatePem);
  expect(await rig.restore(after.point, 'root', [newKit])).toEqual(await rig.restore(before.point, 'root'));
  const oldKit = recoveryKeyFromPem(rig.recovery.privatePem);
  await expect(rig.restore(after.point, 'root', [oldKit])).rejects.toThrow(KeyRefused);
  expect((await rig.protect(machine)).manifest.disks[0]?.fullReadReason).not.toContain('repair');
});

/** The key service answers nothing; every call to it is counted. */
function away(rig: ReplicaRig): { readonly provider: typeof rig.provider; calls: number } {
  const counted = { provider: rig.provider, calls: 0 };
  const silent = () => {
    counted.calls++;
    return Promise.reject(new KeyServiceUnavailable('the key service is away'));
  };
  counted.provider = { ...rig.provider, generateDataKey: silent, wrap: silent, unwrap: silent };
  return counted;
}

it('a key epoch ends by itself after thirty days, and what was sealed before stays readable', async () => {
  await using workers = new RigWorkers();
  await using rig = await ReplicaRig.create(openMemoryTarget(new MemoryStore()), { workers, inMemory: true });
  const machine = new ModelMachine();
  machine.addDisk('root', 100_000).write(0, filled(90_000, 1, true));
  const first = await rig.protect(machine);
  const before = await rig.restore(first.point, 'root');
  const dayMs = 24 * 3_600_000;
  const epochs: number[] = [];
  for (const day of [29, 31, 60, 62]) {
    rig.now = () => Date.now() + day * dayMs;
    await rig.protect(machine);
    using reader = await rig.open();
    epochs.push(reader.replica.chain.state.epoch);
  }
  expect(epochs).toEqual([1, 2, 2, 3]);
  expect(await rig.restore(first.point, 'root')).toEqual(before);
});

describe('a key service that is away', () => {
  let rig: ReplicaRig;
  let workers: RigWorkers;
  let machine: ModelMachine;
  beforeEach(async () => {
    workers = new RigWorkers();
    rig = await ReplicaRig.create(openMemoryTarget(new MemoryStore()), { workers, inMemory: true });
    machine = new ModelMachine();
    machine.addDisk('root', 300_000).write(0, filled(250_000, 1, true));
    return async () => {
      await rig[Symbol.asyncDispose]();
      await workers[Symbol.asyncDispose]();
    };
  });

  it('never blocks a run inside a key epoch, however often, and the run says so', async () => {
    expect((await rig.protect(machine)).keyServiceAway).toBeNull();
    const { provider } = away(rig);
    for (let i = 0; i < 3; i++) {
      machine.disks.get('root')?.write(i * 70_000, filled(10, 4 + i, true));
      const { point, keyServiceAway, manifest } = await rig.protect(machine, { provider });
      expect(keyServiceAway).toBe('the key service is away');
      expect(manifest.disks[0]?.fullReadReason).toBe('');
      expect(Buffer.compare(await rig.restore(point, 'root'), machine.newest.get('root')?.bytes() ?? Buffer.of())).toBe(
        0,
      );
    }
    using reader = await rig.open();
    expect([...reader.replica.chain.state.epochs.keys()]).toEqual([1]);
  });

  it('blocks a run that needs a new epoch, and a host that keeps no key', async () => {
    await rig.protect(machine);
    const { provider } = away(rig);
    rig.now = () => Date.now() + 31 * 24 * 3_600_000;
    await expect(rig.protect(machine, { provider })).rejects.toThrow(KeyServiceUnavailable);
    rig.now = Date.now;
    await rig.protect(machine, { access: 'write-only' });
    await expect(rig.protect(machine, { provider, access: 'write-only' })).rejects.toThrow(KeyServiceUnavailable);
  });

  it('is not made up for by the key of another epoch', async () => {
    await rig.protect(machine);
    const elsewhere = `${rig.stateFolder}-2`;
    await rig.protect(machine, { stateFolder: elsewhere, takeOver: true, access: 'write-only' });
    const { provider } = away(rig);
    const run = rig.protect(machine, { provider, takeOver: true });
    await expect(run).rejects.toThrow(KeyServiceUnavailable);
  });
});

it('a key service that says no is heard although the data key is kept', async () => {
  await using workers = new RigWorkers();
  await using rig = await ReplicaRig.create(openMemoryTarget(new MemoryStore()), { workers, inMemory: true });
  const machine = new ModelMachine();
  machine.addDisk('root', 100_000);
  await rig.protect(machine);
  const no = () => Promise.reject(new KeyDisabled('the key is disabled'));
  const provider = { ...rig.provider, generateDataKey: no, unwrap: no };
  await expect(rig.protect(machine, { provider })).rejects.toThrow(KeyDisabled);
});
