import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { SourceUnreadable } from '../../../hypervisors/errors.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';

const mebibyte = 2 ** 20;

it('reads of scattered blocks are made together, and none outlives a run that fails by another one', async () => {
  await using rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', 16 * mebibyte);
  await rig.protect(machine);
  for (let at = 0; at < 16 * mebibyte; at += 5 * mebibyte) disk.write(at, filled(9_000, at, true));

  let [underWay, most, reads] = [0, 0, 0];
  machine.gate = async (call) => {
    if (call !== 'read') return;
    most = Math.max(most, ++underWay);
    const isFirst = reads++ === 0;
    await sleep(isFirst ? 1 : 100);
    underWay--;
    if (isFirst) throw new SourceUnreadable('the first block can not be read');
  };
  await expect(rig.protect(machine)).rejects.toThrow('the first block can not be read');
  expect([underWay, reads]).toEqual([0, 4]);
  expect(most).toBe(4);
});
