import { readSync } from 'node:fs';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QuiesceUnavailable, SourceNotFound } from '../../hypervisors/errors.ts';
import type { BlockSource, Extent, HypervisorConnection, SnapshotOptions } from '../../hypervisors/hypervisor.ts';
import { timesTried } from '../lanes/quick.ts';

/** One machine on one hypervisor, made for one test; disposing removes it. */
export interface HypervisorLab extends AsyncDisposable {
  readonly connection: HypervisorConnection;
  readonly machineName: string;
  /** What each disk holds now, by label. Together at least two disks, one with a size that is no multiple of 4 KiB if the source allows it. */
  content(): Promise<ReadonlyMap<string, Uint8Array>>;
  /** Writes as the guest would, between snapshots. */
  write(label: string, offset: number, bytes: Uint8Array): Promise<void>;
}

const options: SnapshotOptions = { quiesce: 'prefer', whenChanging: 'refuse' };
const never = new AbortController().signal;

/** What every HypervisorConnection promises, whatever is behind it. */
export function describeHypervisorContract(kind: string, openLab: () => Promise<HypervisorLab>): void {
  describe(`${kind} keeps the hypervisor contract`, () => {
    let lab: HypervisorLab;
    beforeEach(async () => {
      lab = await openLab();
    });
    afterEach(async () => {
      await lab[Symbol.asyncDispose]();
    });
    const snapshot = () => lab.connection.snapshot({ name: lab.machineName }, options, never);

    it('lists the machine with its disks and capacities', async () => {
      const machines = await collect(lab.connection.listMachines(never));
      const disks = machines.find((machine) => machine.name === lab.machineName)?.disks ?? [];
      const sizes = new Map(disks.map((disk) => [disk.label, disk.capacityBytes]));
      const expected = new Map([...(await lab.content())].map(([label, bytes]) => [label, bytes.length]));
      expect(sizes).toEqual(expected);
    });

    it('yields a full listing that is ascending, disjoint and inside the capacity', async () => {
      await using taken = await snapshot();
      expect(taken.disks.length).toBeGreaterThan(0);
      for (const disk of taken.disks) expectWellFormed(disk, await extentsOf(disk, null));
    });

    it('gives every byte of the disk through a full listing', async () => {
      const content = await lab.content();
      await using taken = await snapshot();
      const copies = new Map<string, Uint8Array>();
      for (const disk of taken.disks) copies.set(disk.label, await copyOf(disk));
      expect([...copies.keys()].sort()).toEqual([...content.keys()].sort());
      for (const [label, bytes] of content) expectSameBytes(copies.get(label), bytes);
    });

    it('fills any range exactly, however many reads run at once', async () => {
      const content = await lab.content();
      await using taken = await snapshot();
      for (const disk of taken.disks) await expectRandomReads(disk, content.get(disk.label) ?? new Uint8Array());
    });

    it('reads into a view on shared memory and touches nothing around it', async () => {
      await using taken = await snapshot();
      const disk = firstOf(taken.disks);
      const shared = new Uint8Array(new SharedArrayBuffer(3000)).fill(0xa5);
      await disk.read(0, shared.subarray(1000, 2000), never);
      const content = (await lab.content()).get(disk.label)?.subarray(0, 1000);
      expectSameBytes(shared.slice(1000, 2000), content);
      expect(shared.slice(0, 1000).every((byte) => byte === 0xa5)).toBe(true);
      expect(shared.slice(2000).every((byte) => byte === 0xa5)).toBe(true);
    });

    it('gives the same bytes to whoever may read them directly', async () => {
      const content = await lab.content();
      await using taken = await snapshot();
      for (const { label, direct, capacityBytes } of taken.disks) {
        const pieces = (await direct?.locate(0, capacityBytes, never)) ?? null;
        if (pieces === null) continue;
        const bytes = new Uint8Array(capacityBytes);
        for (const { at, length, fd, offset } of pieces) expect(readSync(fd, bytes, at, length, offset)).toBe(length);
        expectSameBytes(bytes, content.get(label));
      }
    });

    it('reports what was written since the reference point, or has none and lists everything', async () => {
      const since = await referencePointsOf(snapshot);
      const label = firstOf([...since.keys()]);
      await lab.write(label, 8192, new Uint8Array(4096).fill(0x77));
      await using taken = await snapshot();
      const disk = taken.disks.find((candidate) => candidate.label === label);
      if (disk === undefined) throw new Error(`disk ${label} vanished`);
      const extents = await extentsOf(disk, since.get(label) ?? null);
      expectWellFormed(disk, extents);
      expect(extents.some((extent) => covers(extent, 8192, 4096))).toBe(true);
    });

    it('says that an undisturbed disk is consistent', async () => {
      await using taken = await snapshot();
      for (const disk of taken.disks) await copyOf(disk);
      expect(await taken.settleConsistency(never)).toMatch(/^(crash|application)-consistent$/);
    });

    it('reaches application consistency or refuses when it is required', async () => {
      const outcome = lab.connection.snapshot({ name: lab.machineName }, { ...options, quiesce: 'require' }, never);
      const reached = await outcome.then(
        async (taken) => {
          await using open = taken;
          return open.settleConsistency(never);
        },
        (error: unknown) => error,
      );
      if (reached !== 'application-consistent') expect(reached).toBeInstanceOf(QuiesceUnavailable);
    });

    it('names disks and attachments uniquely', async () => {
      await using taken = await snapshot();
      const labels = [...taken.disks, ...taken.excluded].map((disk) => disk.label);
      expect(new Set(labels).size).toBe(labels.length);
      const names = taken.attachments.map((attachment) => attachment.name);
      expect(new Set(names).size).toBe(names.length);
      for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._-]{1,100}$/);
    });

    it('refuses a machine that does not exist, by name', async () => {
      const outcome = lab.connection.snapshot({ name: 'no-such-machine' }, options, never);
      await expect(outcome).rejects.toThrow(SourceNotFound);
      await expect(outcome).rejects.toThrow(/no-such-machine/);
    });

    it('passes the reason of an abort through untouched', async () => {
      const reason = new Error('enough');
      const aborted = AbortSignal.abort(reason);
      await expect(lab.connection.snapshot({ name: lab.machineName }, options, aborted)).rejects.toBe(reason);
      await using taken = await snapshot();
      const disk = firstOf(taken.disks);
      await expect(disk.read(0, new Uint8Array(512), aborted)).rejects.toBe(reason);
      await expect(collect(disk.changedExtents(null, aborted))).rejects.toBe(reason);
      await expect(taken.settleConsistency(aborted)).rejects.toBe(reason);
    });

    it('takes a new snapshot after an old one was disposed, and disposing twice is fine', async () => {
      const first = await snapshot();
      await first[Symbol.asyncDispose]();
      await first[Symbol.asyncDispose]();
      await using second = await snapshot();
      expect(second.takenAt.getTime()).toBeGreaterThanOrEqual(first.takenAt.getTime());
    });
  });
}

async function referencePointsOf(snapshot: () => ReturnType<HypervisorConnection['snapshot']>) {
  await using taken = await snapshot();
  taken.notePublished?.();
  return new Map(taken.disks.map((disk) => [disk.label, disk.referencePoint]));
}

async function extentsOf(disk: BlockSource, since: Uint8Array | null): Promise<Extent[]> {
  return collect(disk.changedExtents(since, never));
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

function expectWellFormed(disk: BlockSource, extents: readonly Extent[]): void {
  let end = 0;
  for (const extent of extents) {
    expect(extent.offset).toBeGreaterThanOrEqual(end);
    expect(extent.length).toBeGreaterThan(0);
    end = extent.offset + extent.length;
  }
  expect(end).toBeLessThanOrEqual(disk.capacityBytes);
}

async function copyOf(disk: BlockSource): Promise<Uint8Array> {
  const copy = new Uint8Array(disk.capacityBytes);
  for (const extent of await extentsOf(disk, null))
    if (!extent.zero)
      await disk.read(extent.offset, copy.subarray(extent.offset, extent.offset + extent.length), never);
  return copy;
}

async function expectRandomReads(disk: BlockSource, content: Uint8Array): Promise<void> {
  const range = fc
    .tuple(fc.nat(content.length), fc.nat(content.length))
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)]);
  await fc.assert(
    fc.asyncProperty(fc.array(range, { maxLength: 20 }), async (ranges) => {
      const reads = ranges.map(async ([start = 0, end = 0]) => {
        const into = new Uint8Array(end - start);
        await disk.read(start, into, never);
        expectSameBytes(into, content.subarray(start, end));
      });
      await Promise.all(reads);
    }),
    { numRuns: timesTried(50) },
  );
}

/** Millions of bytes: a failing toEqual would print them all. */
function expectSameBytes(actual: Uint8Array | undefined, expected: Uint8Array | undefined): void {
  expect(actual?.length).toBe(expected?.length);
  expect(Buffer.compare(actual ?? new Uint8Array(), expected ?? new Uint8Array())).toBe(0);
}

function covers(extent: Extent, offset: number, length: number): boolean {
  return !extent.zero && extent.offset <= offset && extent.offset + extent.length >= offset + length;
}

function firstOf<Item>(items: readonly Item[]): Item {
  const [first] = items;
  if (first === undefined) throw new Error('expected at least one');
  return first;
}
