/**
 * Two hundred runs at a vCenter of our own making, among all that can happen to one: after each, what we hold of every disk is what the
 * disk held at the snapshot.
 */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ChangeTrackingLost } from '../../../hypervisors/errors.ts';
import type {
  BlockSource,
  HypervisorConnection,
  MachineSnapshot,
  ReferencePoint,
} from '../../../hypervisors/hypervisor.ts';
import { connectVsphere } from '../../../hypervisors/vsphere/vsphere-connection.ts';
import type { Vcsim } from '../../peers/vcsim.ts';
import { type StandInVddk, standInFor } from '../../peers/vddk.ts';
import { Random } from '../../random.ts';
import { labMachine as machine, openVsphereLab, type VsphereLab, vsphereNeeds } from './vsphere-lab.ts';

const needs = await vsphereNeeds();
const never = new AbortController().signal;
const cycles = 200;
const capacityBytes = 1024 * 1024;
const disksMax = 3;

/** What was replicated of a disk, and what the next run asks by. */
interface Replicated {
  readonly bytes: Uint8Array;
  readonly since: ReferencePoint;
}

describe.skipIf(needs !== null)(needs ?? 'vSphere', () => {
  let lab: VsphereLab;
  let connection: HypervisorConnection;
  beforeAll(async () => {
    lab = await openVsphereLab({ capacityBytes });
    await lab.vddk.set({ ...standInFor(lab.vcsim), 'read-latency-us': 500 });
    connection = connectVsphere([lab.machine()]);
  });
  afterAll(async () => {
    await connection?.[Symbol.asyncDispose]();
    await lab?.[Symbol.asyncDispose]();
  });

  it(`gives points that are what the disks held, ${cycles} times in a row`, async () => {
    const seed = randomBytes(4).readUInt32LE();
    const random = new Random(seed);
    const { vcsim } = lab;
    const told = `seed ${seed}`;
    let replica: ReadonlyMap<string, Replicated> = new Map();
    const tally = { failed: 0, resynced: 0, synced: 0 };
    const foreign: string[] = [];
    for (let cycle = 1; cycle <= cycles; cycle++) {
      await somethingHappens(vcsim, random, foreign);
      const taken = await run(random, replica, tally);
      if (taken === null) {
        tally.failed++;
        await vcsim.heal();
      } else if (random.chance(0.85)) replica = taken;
      const left = (await vcsim.points(machine)).filter(({ gone }) => !gone).map(({ snapshot }) => snapshot);
      // A run that failed may have left one of ours, never two; nobody else's is ever touched.
      expect(left.filter((each) => !foreign.includes(each)).length, told).toBeLessThanOrEqual(taken === null ? 1 : 0);
      expect(
        left.filter((each) => foreign.includes(each)),
        told,
      ).toEqual(foreign);
    }
    expect(tally.synced, told).toBeGreaterThan(cycles / 2);
    expect(tally.resynced, told).toBeGreaterThan(10);
    expect(tally.failed, told).toBeLessThan(cycles / 3);
  });

  /** Null: the run failed, as one may. */
  async function run(
    random: Random,
    replica: ReadonlyMap<string, Replicated>,
    tally: { resynced: number; synced: number },
  ): Promise<ReadonlyMap<string, Replicated> | null> {
    const since = new Map([...replica].map(([label, held]) => [label, held.since]));
    const { vcsim, vddk } = lab;
    let snapshot: MachineSnapshot | null = null;
    const taken = new Map<string, Replicated>();
    try {
      snapshot = await connection.snapshot(
        { name: 'web' },
        { quiesce: 'prefer', whenChanging: 'refuse', since },
        never,
      );
      const copies = await copiesOf(vcsim);
      await meanwhile(vcsim, vddk, random);
      for (const disk of snapshot.disks) {
        const bytes = await replicate(disk, replica.get(disk.label) ?? null, tally);
        const copy = copies.get(disk.label);
        if (copy === undefined || Buffer.compare(bytes, copy) !== 0)
          throw new Error(`disk ${disk.label} is not what it was at the snapshot: bytes ${differences(bytes, copy)}`);
        taken.set(disk.label, { bytes, since: disk.referencePoint });
      }
      expect(snapshot.disks.length).toBe(copies.size);
      await snapshot.settleConsistency(never);
      const done = snapshot;
      snapshot = null;
      await done[Symbol.asyncDispose]();
      return taken;
    } catch (error) {
      if (!isExpected(error)) throw error;
      await leave(snapshot);
      return null;
    }
  }
});

async function leave(snapshot: MachineSnapshot | null): Promise<void> {
  try {
    await snapshot?.[Symbol.asyncDispose]();
  } catch (error) {
    if (!isExpected(error)) throw error;
  }
}

/** What a vCenter that goes away, or forgets us, may lead to. */
function isExpected(error: unknown): boolean {
  const codes = ['VSPHERE_UNREACHABLE', 'VSPHERE_TIMED_OUT', 'VSPHERE_REFUSED', 'VSPHERE_LOGIN_REFUSED', 'VDDK_FAILED'];
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

async function replicate(
  disk: BlockSource,
  held: Replicated | null,
  tally: { resynced: number; synced: number },
): Promise<Uint8Array> {
  if (held !== null)
    try {
      const bytes = new Uint8Array(held.bytes);
      if (bytes.length === disk.capacityBytes) {
        await apply(disk, held.since, bytes);
        tally.synced++;
        return bytes;
      }
    } catch (error) {
      if (!(error instanceof ChangeTrackingLost)) throw error;
    }
  tally.resynced++;
  const bytes = new Uint8Array(disk.capacityBytes);
  await apply(disk, null, bytes);
  return bytes;
}

async function apply(disk: BlockSource, since: ReferencePoint, bytes: Uint8Array): Promise<void> {
  const reads: Promise<void>[] = [];
  for await (const { offset, length, zero } of disk.changedExtents(since, never))
    if (zero) bytes.fill(0, offset, offset + length);
    else reads.push(disk.read(offset, bytes.subarray(offset, offset + length), never));
  await Promise.all(reads);
}

async function somethingHappens(vcsim: Vcsim, random: Random, foreign: string[]): Promise<void> {
  const disks = await vcsim.disks(machine);
  const some = random.pick(disks);
  // vSphere changes no disk that stands on a snapshot; a failed run may have left one.
  const isFree = (await vcsim.points(machine)).every(({ gone }) => gone);
  if (random.chance(0.8)) for (const disk of disks) await write(disk.live, disk.capacityBytes, random, random.below(8));
  if (random.chance(0.05)) await vcsim.resetTracking(machine, some.key);
  if (random.chance(0.05) && isFree)
    await vcsim.resizeDisk(machine, some.key, some.capacityBytes + 512 * (1 + random.below(300)));
  if (random.chance(0.06) && isFree && disks.length < disksMax) await vcsim.addDisk(machine, capacityBytes);
  else if (random.chance(0.06) && isFree && disks.length > 1) await vcsim.removeDisk(machine, some.key);
  if (random.chance(0.08) && foreign.length === 0) foreign.push(await vcsim.addSnapshot(machine, 'somebody else'));
  else if (random.chance(0.3) && foreign.length > 0) await vcsim.removeSnapshot(machine, foreign.pop() ?? '');
  if (random.chance(0.1))
    await vcsim.behave({
      windowBytes: random.pick([0, 65_536, 300_000, 1_000_000]),
      extentsMax: 1 + random.below(6),
      overReported: random.below(3),
    });
  if (random.chance(0.05)) await vcsim.hurt(random.pick(hurts));
}

const hurts = [
  { method: 'QueryChangedDiskAreas', how: 'fault', fault: 'FileFault', property: '[ds] disk.vmdk' },
  { method: 'QueryChangedDiskAreas', how: 'fault', fault: 'FileFault', property: '[ds] disk.vmdk', skip: 2 },
  { method: 'QueryChangedDiskAreas', how: 'lose-answer' },
  { method: 'CreateSnapshot_Task', how: 'task', fault: 'ApplicationQuiesceFault' },
  { method: 'CreateSnapshot_Task', how: 'lose-answer' },
  { method: 'RemoveSnapshot_Task', how: 'lose-answer' },
  { method: 'RemoveSnapshot_Task', how: 'task', fault: 'TaskInProgress' },
] as const;

/** The snapshot is there, and is about to be read. */
async function meanwhile(vcsim: Vcsim, vddk: StandInVddk, random: Random): Promise<void> {
  for (const disk of await vcsim.disks(machine)) await write(disk.live, disk.capacityBytes, random, random.below(3));
  if (random.chance(0.06)) await vcsim.endSessions();
  if (random.chance(0.04)) await vcsim.restart(50 + random.below(200));
  if (random.chance(0.1)) killReader(vddk, 100 + random.below(200));
}

function killReader({ libdir }: StandInVddk, afterMs: number): void {
  setTimeout(() => {
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)))
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`\0libdir=${libdir}\0`))
          process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It ended meanwhile.
      }
  }, afterMs);
}

async function write(path: string, capacity: number, random: Random, times: number): Promise<void> {
  await using file = await open(path, 'r+');
  for (let i = 0; i < times; i++) {
    const bytes = random.chance(0.2) ? new Uint8Array(90_000) : randomBytes(1 + random.below(90_000));
    const place = random.below(capacity - bytes.length);
    await file.write(bytes, 0, bytes.length, place);
  }
}

async function copiesOf(vcsim: Vcsim): Promise<ReadonlyMap<string, Uint8Array>> {
  const newest = (await vcsim.points(machine)).at(-1);
  const copies = new Map<string, Uint8Array>();
  for (const { label, path } of newest?.disks ?? []) copies.set(label, await readFile(path));
  return copies;
}

function differences(bytes: Uint8Array, copy: Uint8Array | undefined): string {
  if (copy === undefined || copy.length !== bytes.length) return `${bytes.length} instead of ${copy?.length}`;
  const first = bytes.findIndex((byte, i) => byte !== copy[i]);
  return `${first} to ${bytes.findLastIndex((byte, i) => byte !== copy[i])}`;
}
