import { expect, it } from 'vitest';
import { Coverage, withCoverage } from '../../../agent/progress/coverage.ts';
import { withDisks } from '../../../agent/with-disks.ts';
import type { BlockSource, Extent, HypervisorConnection } from '../../../hypervisors/hypervisor.ts';

const never = new AbortController().signal;
const tracked = new Uint8Array(1);

/** A machine whose disks list these extents. */
function machineOf(...disks: { capacityBytes: number; extents: readonly Extent[] }[]): HypervisorConnection {
  const sources: BlockSource[] = disks.map(({ capacityBytes, extents }, i) => ({
    label: `disk-${i}`,
    capacityBytes,
    referencePoint: null,
    async *changedExtents() {
      yield* extents;
    },
    read: async () => undefined,
    direct: null,
    changesOnly: false,
  }));
  return {
    async *listMachines() {
      yield { name: 'm', disks: [] };
    },
    snapshot: async () => ({
      takenAt: new Date(0),
      disks: sources,
      excluded: [],
      attachments: [],
      frozenMs: null,
      settleConsistency: async () => 'crash-consistent' as const,
      [Symbol.asyncDispose]: async () => undefined,
    }),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

async function disksOf(connection: HypervisorConnection, coverage: Coverage): Promise<readonly BlockSource[]> {
  const options = { quiesce: 'off', whenChanging: 'refuse' } as const;
  return (await withCoverage(connection, coverage).snapshot({ name: 'm' }, options, never)).disks;
}

async function list(disk: BlockSource | undefined, since: Uint8Array | null): Promise<void> {
  for await (const _ of disk?.changedExtents(since, never) ?? []);
}

async function read(disk: BlockSource | undefined, offset: number, length: number): Promise<void> {
  await disk?.read(offset, new Uint8Array(length), never);
}

it('data counts when it was read, free space when all data before it was', async () => {
  const coverage = new Coverage();
  expect(coverage.capacityBytes).toBe(0);
  const extents = [
    { offset: 100, length: 200, zero: false },
    { offset: 400, length: 100, zero: true },
    { offset: 500, length: 100, zero: false },
  ];
  const [disk] = await disksOf(machineOf({ capacityBytes: 1_000, extents }), coverage);
  expect([coverage.capacityBytes, coverage.coveredBytes]).toEqual([1_000, 0]);
  await list(disk, null);
  expect([coverage.coveredBytes, coverage.zeroBytes, coverage.untouchedBytes]).toEqual([0, 700, 0]);
  await read(disk, 100, 150);
  expect(coverage.coveredBytes).toBe(250);
  await read(disk, 250, 50);
  expect(coverage.coveredBytes).toBe(300);
  await read(disk, 500, 100);
  expect(coverage.coveredBytes).toBe(1_000);
});

it('what tracking leaves out is untouched, and counts at once', async () => {
  const coverage = new Coverage();
  const extents = [{ offset: 600, length: 64, zero: false }];
  const [disk] = await disksOf(machineOf({ capacityBytes: 1_000, extents }), coverage);
  await list(disk, tracked);
  expect([coverage.untouchedBytes, coverage.zeroBytes]).toEqual([936, 0]);
  await read(disk, 600, 64);
  expect(coverage.coveredBytes).toBe(1_000);
});

it('a disk that is listed again begins again', async () => {
  const coverage = new Coverage();
  const extents = [{ offset: 0, length: 500, zero: false }];
  const [disk] = await disksOf(machineOf({ capacityBytes: 1_000, extents }), coverage);
  await list(disk, tracked);
  await read(disk, 0, 500);
  expect([coverage.coveredBytes, coverage.untouchedBytes]).toEqual([1_000, 500]);
  await list(disk, null);
  expect([coverage.coveredBytes, coverage.untouchedBytes, coverage.zeroBytes]).toEqual([0, 0, 500]);
});

it('disks add up, and an empty one is done when it was listed', async () => {
  const coverage = new Coverage();
  const full = { capacityBytes: 100, extents: [{ offset: 0, length: 100, zero: false }] };
  const [first, second] = await disksOf(machineOf(full, { capacityBytes: 300, extents: [] }), coverage);
  await list(first, null);
  // Reads are of whole blocks: they may reach over the end.
  await read(first, 0, 128);
  expect([coverage.coveredBytes, coverage.capacityBytes]).toEqual([100, 400]);
  await list(second, null);
  expect(coverage.coveredBytes).toBe(400);
});

it('what threads read by themselves counts, and whoever watches below hears of it, too', async () => {
  const coverage = new Coverage();
  const heard: number[][] = [];
  const direct = { locate: async () => null, noteRead: (...read: number[]) => void heard.push(read) };
  const machine = machineOf({ capacityBytes: 1_000, extents: [{ offset: 0, length: 1_000, zero: false }] });
  const readable = withDisks(machine, (disks) => disks.map((disk) => ({ ...disk, direct })));
  const [disk] = await disksOf(readable, coverage);
  await list(disk, null);
  disk?.direct?.noteRead(0, 600);
  expect(coverage.coveredBytes).toBe(600);
  expect(heard).toEqual([[0, 600]]);
});
