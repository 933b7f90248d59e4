import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { withDisks } from '../../../agent/with-disks.ts';
import { SourceUnreadable } from '../../../hypervisors/errors.ts';
import type { DirectReads } from '../../../hypervisors/hypervisor.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';

const capacityBytes = 6 * 2 ** 20 + 1000;

/** A machine whose one disk is also in a file, or in what is left of one. */
async function machineWithFile(fileBytes: number) {
  const rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', capacityBytes);
  disk.write(0, filled(capacityBytes, 1, true));
  disk.discard(2 ** 20, 2 ** 20);
  const content = disk.content.bytes();
  const path = join(rig.folder, 'disk.raw');
  writeFileSync(path, content.subarray(0, fileBytes));
  const fd = openSync(path, 'r');
  const locate: DirectReads['locate'] = async (offset, length) => [{ at: offset, length, fd, offset }];
  return { rig, machine, content, locate, [Symbol.dispose]: () => closeSync(fd) };
}

it('a disk that threads read by themselves is restored to the last byte, and its owner reads nothing of it', async () => {
  using lab = await machineWithFile(capacityBytes);
  await using rig = lab.rig;
  const noted: number[] = [];
  const direct = { locate: lab.locate, noteRead: (offset: number) => void noted.push(offset) };
  const read = () => Promise.reject(new SourceUnreadable('nobody should ask'));
  const { point, manifest } = await rig.protect(
    withDisks(lab.machine, (disks) => disks.map((disk) => ({ ...disk, direct, read }))),
  );
  expect(Buffer.compare(await rig.restore(point, 'system'), lab.content)).toBe(0);
  expect(noted.length).toBeGreaterThan(0);
  expect(manifest.readBytes).toBeLessThanOrEqual(capacityBytes);
});

it('what they can not read is read by its owner, and the point is the disk', async () => {
  using lab = await machineWithFile(3 * 2 ** 20 + 17);
  await using rig = lab.rig;
  const direct = { locate: lab.locate, noteRead: () => undefined };
  const { point } = await rig.protect(withDisks(lab.machine, (disks) => disks.map((disk) => ({ ...disk, direct }))));
  expect(Buffer.compare(await rig.restore(point, 'system'), lab.content)).toBe(0);
});

it("and where its owner can't either, the run says what the owner says", async () => {
  using lab = await machineWithFile(17);
  await using rig = lab.rig;
  const direct = { locate: lab.locate, noteRead: () => undefined };
  const read = () => Promise.reject(new SourceUnreadable('disk.raw ends early'));
  const outcome = rig.protect(withDisks(lab.machine, (disks) => disks.map((disk) => ({ ...disk, direct, read }))));
  await expect(outcome).rejects.toThrow(new SourceUnreadable('disk.raw ends early'));
});
