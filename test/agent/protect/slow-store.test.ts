import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';

const block = 65_536;
const stretchBlocks = 64;
const stretches = 24;

/** What is read ahead must not come over what waits for the store: both lie in buffers that go round. */
it('a store that is slower than the source changes nothing of what is stored', async () => {
  await using rig = await ReplicaRig.create(undefined, { inMemory: true });
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', stretches * stretchBlocks * block);
  for (let i = 0; i < stretches; i++) disk.write(i * stretchBlocks * block, randomBytes(4 * block));
  const target = {
    ...rig.target,
    async putIfAbsent(...args: Parameters<typeof rig.target.putIfAbsent>) {
      await sleep(20);
      await rig.target.putIfAbsent(...args);
    },
  };
  const ahead = { workers: 4, segmentsInFlightMax: 1, segmentBytes: 200_000 };
  const { point } = await rig.protect(machine, { target, ...ahead });
  expect(Buffer.compare(await rig.restore(point, 'system'), disk.content.bytes())).toBe(0);
});
