import { randomBytes } from 'node:crypto';
import { expect, it } from 'vitest';
import { withDisks } from '../../agent/with-disks.ts';
import { withReadRate } from '../../agent/with-read-rate.ts';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';
import { describeHypervisorContract } from '../contract/hypervisor.ts';
import { ModelMachine } from '../fakes/model-machine.ts';

const kibibyte = 1024;
const never = new AbortController().signal;

function twoDisks(): ModelMachine {
  const machine = new ModelMachine();
  machine.addDisk('root', 300_001).write(0, randomBytes(300_001));
  machine.addDisk('data', 512 * kibibyte).write(0, randomBytes(200_000));
  return machine;
}

describeHypervisorContract('a source with a read rate', async () => {
  const machine = twoDisks();
  return {
    connection: withReadRate(machine, new Bandwidth(null)),
    machineName: 'machine',
    content: async () => new Map([...machine.disks].map(([label, disk]) => [label, disk.content.bytes()])),
    write: async (label, offset, bytes) => {
      machine.disks.get(label)?.write(offset, bytes);
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
});

it('all disks of a machine together are read no faster than the rate', async () => {
  let nowMs = 0;
  const clock = {
    now: () => nowMs,
    sleep: async (ms: number) => {
      nowMs += ms;
    },
  };
  const connection = withReadRate(twoDisks(), new Bandwidth(100 * kibibyte, clock));
  await using taken = await connection.snapshot(
    { name: 'machine' },
    { quiesce: 'prefer', whenChanging: 'refuse' },
    never,
  );
  const into = new Uint8Array(50 * kibibyte);
  for (let i = 0; i < 5; i++) for (const disk of taken.disks) await disk.read(i * into.length, into, never);
  // Ten reads of half a second each; the last piece is still to be paid for.
  expect(nowMs).toBeGreaterThanOrEqual(4900);
  expect(nowMs).toBeLessThanOrEqual(5000);
});

it('nobody reads a disk past the rate, and a rate that comes or goes is kept from then on', async () => {
  const rate = new Bandwidth(null);
  const direct = { locate: async () => null, noteRead: () => undefined };
  const readable = withDisks(twoDisks(), (disks) => disks.map((disk) => ({ ...disk, direct })));
  const options = { quiesce: 'prefer', whenChanging: 'refuse' } as const;
  await using taken = await withReadRate(readable, rate).snapshot({ name: 'machine' }, options, never);
  const seen = (): unknown[] => taken.disks.map((disk) => disk.direct);
  expect(seen()).toEqual([direct, direct]);
  rate.set(kibibyte);
  expect(seen()).toEqual([null, null]);
  rate.set(null);
  expect(seen()).toEqual([direct, direct]);
});
