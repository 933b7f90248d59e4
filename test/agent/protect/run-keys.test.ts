import { expect, it } from 'vitest';
import { KeyRefused } from '../../../crypto/errors.ts';
import { generateRecoveryKey, recoveryKeyFromPem } from '../../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import { putTrust } from '../../../replica/create-repository.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
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
