import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { StorageTarget } from '../../../storage-targets/storage-target.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';

const block = 65_536;
const stretchBlocks = 64;
const stretches = 24;

function slow(target: StorageTarget): StorageTarget {
  return {
    ...target,
    async putIfAbsent(...args) {
      await sleep(20);
      await target.putIfAbsent(...args);
    },
  };
}

/** What is read ahead must not come over what waits for the store: both lie in buffers that go round. */
it('a store that is slower than the source changes nothing of what is stored', async () => {
  await using rig = await ReplicaRig.create(undefined, { inMemory: true });
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', stretches * stretchBlocks * block);
  for (let i = 0; i < stretches; i++) disk.write(i * stretchBlocks * block, randomBytes(4 * block));
  const ahead = { workers: 4, segmentsInFlightMax: 1, segmentBytes: 200_000 };
  const { point } = await rig.protect(machine, { target: slow(rig.target), ...ahead });
  expect(Buffer.compare(await rig.restore(point, 'system'), disk.content.bytes())).toBe(0);
});

it('a store that everything waits for gets better compressed segments, where the level is left to the agent', async () => {
  const sent = async (compression: number | 'auto'): Promise<number> => {
    await using rig = await ReplicaRig.create(undefined, { inMemory: true });
    const machine = new ModelMachine();
    const disk = machine.addDisk('system', 16 * stretchBlocks * block);
    for (let i = 0; i < 16; i++) disk.write(i * stretchBlocks * block, words(16 * block, i));
    const options = { compression, workers: 2, segmentsInFlightMax: 1, segmentBytes: 100_000 };
    const { point, manifest } = await rig.protect(machine, { target: slow(rig.target), ...options });
    expect(Buffer.compare(await rig.restore(point, 'system'), disk.content.bytes())).toBe(0);
    return manifest.uploadedBytes;
  };
  const fastest = await sent(1);
  expect(await sent('auto')).toBeLessThan(fastest * 0.97);
});

/** Of a small vocabulary, in no order: better levels find more in it. */
function words(length: number, seed: number): Uint8Array {
  const parts: string[] = [];
  for (let bytes = 0, state = seed + 1; bytes < length; bytes += 8) {
    state = (state * 48_271) % 2_147_483_647;
    parts.push(`${(state % 5_000).toString(36).padStart(7, 'q')} `);
  }
  return Buffer.from(parts.join('')).subarray(0, length);
}
