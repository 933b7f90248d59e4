import { expect, it } from 'vitest';
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
