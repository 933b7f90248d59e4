import { afterAll, beforeAll, expect, it } from 'vitest';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import { openChain } from '../../../replica/chain.ts';
import { findGarbage } from '../../../replica/garbage.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { isPinName } from '../../../replica/pins.ts';
import { prunePoints } from '../../../replica/prune.ts';
import { sweep } from '../../../replica/sweep.ts';
import { AccessDenied, Immutable } from '../../../storage-targets/errors.ts';
import { Retention, withRetention } from '../../../storage-targets/with-retention.ts';
import { type MemoryGate, MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { appendEntry } from '../../protocol/append-entry.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';
import { RigWorkers } from '../../rig/rig-workers.ts';

/** That points are immutable for as long as is said of them, shown by deleting all that the store lets go. */

const dayMs = 24 * 3_600_000;
const periodDays = 30;
const capacityBytes = 2 ** 20;
const never = new AbortController().signal;

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

class LockedSite implements AsyncDisposable {
  readonly store = new MemoryStore({ objectLock: true });
  readonly known = new Map<number, { readonly content: Uint8Array; readonly untilMs: number }>();
  readonly #machine = new ModelMachine();
  readonly #disk = this.#machine.addDisk('system', capacityBytes);
  readonly #rig: ReplicaRig;
  #day = 0;
  #nowMs = Date.now();
  extended = 0;
  /** Whether the newest point uses what an interrupted run had put. */
  adopted = false;
  mayExtend = true;
  /** Takes place before the next object is locked again. */
  meanwhile: (() => Promise<void>) | null = null;
  /** The run that begins its tenure then ends with an error. */
  breaksAfterBegin = false;

  private constructor(rig: ReplicaRig, store: MemoryStore) {
    this.#rig = rig;
    this.store = store;
    store.now = () => this.#nowMs;
  }

  static async create(): Promise<LockedSite> {
    const store = new MemoryStore({ objectLock: true });
    return new LockedSite(await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true }), store);
  }

  /** A day passes; a block changes, and a point is published. `hostClockMs`: how far the host's clock is off. */
  async liveOneDay({ hostClockMs = 0, retention = new Retention(periodDays) } = {}): Promise<void> {
    this.#day++;
    this.#nowMs += dayMs;
    this.#rig.now = () => this.#nowMs + hostClockMs;
    this.#disk.write((this.#day % 16) * 65_536, filled(5000, this.#day, true));
    let entries = 0;
    const gate: MemoryGate = async ({ kind, name }) => {
      if (kind === 'put' && name.includes('/chain/')) entries++;
      if (this.breaksAfterBegin && entries > 1) throw new AccessDenied('memory: no entry is taken');
      if (kind === 'extendRetention') this.extended++;
      const meanwhile = kind === 'extendRetention' ? this.meanwhile : null;
      if (meanwhile !== null) {
        this.meanwhile = null;
        await meanwhile();
      }
      if (kind === 'extendRetention' && !this.mayExtend)
        throw new AccessDenied('memory: s3:PutObjectRetention is missing');
      return { kind: 'done' };
    };
    const target = withRetention(openMemoryTarget(this.store, gate), retention, isPinName);
    const content = new Uint8Array(capacityBytes);
    this.#disk.content.read(0, content);
    const { point, adopted } = await this.#rig.protect(this.#machine, { target, retention });
    this.adopted = adopted;
    using reader = await this.#rig.open([this.#rig.provider], openMemoryTarget(this.store));
    this.known.set(point, { content, untilMs: reader.replica.chain.state.lockUntilMs });
  }

  /** Asked for now, kept by a process that goes on. */
  async retentionOfNow(): Promise<Retention> {
    const retention = new Retention(periodDays);
    await retention.until(openMemoryTarget(this.store), never);
    return retention;
  }

  /** Of the segments that were put since then, the first day on which one can be deleted. */
  lockedSince(before: readonly string[]): number {
    const names = this.store.names.filter((name) => name.includes('/segments/') && !before.includes(name));
    return Math.min(...names.map((name) => this.store.read(name).retainUntil?.getTime() ?? 0));
  }

  /** Nobody does anything for so long. */
  wait(days: number): void {
    this.#nowMs += days * dayMs;
  }

  /** By another host: the newest point that there is stays. Returns how many segments have gone. */
  async pruneAndSweep(): Promise<number> {
    const target = openMemoryTarget(this.store);
    const repo = await openRepository(target, rootFingerprint(this.#rig.root.publicKey), never);
    const choose = async ({ state }: { readonly state: { readonly points: ReadonlyMap<number, unknown> } }) =>
      [...state.points.keys()].sort((a, b) => a - b).slice(0, -1);
    const pruner = { agent: this.#rig.agent, now: () => this.#nowMs, choose };
    await prunePoints(repo, this.#rig.machineId, pruner, never);
    const before = this.store.names.length;
    await sweep(target, findGarbage(repo, this.#rig.machineId, never), never);
    return before - this.store.names.length;
  }

  /** An entry by the agent's key, which somebody stole. */
  async claimLock(untilMs: number): Promise<void> {
    const repo = await openRepository(openMemoryTarget(this.store), rootFingerprint(this.#rig.root.publicKey), never);
    const chain = await openChain(repo, this.#rig.machineId, never);
    if (chain === null) throw new Error('no chain');
    const generation = chain.state.lockGeneration + 1;
    expect(await appendEntry(repo, chain, { type: 'lock', generation, untilMs }, this.#rig.agent)).toBe(true);
  }

  /** What is left of the store when somebody with every right deletes all that can be deleted then, and which points are still whole. */
  async attackedAt(timeMs: number): Promise<{ readonly removed: number; readonly whole: readonly number[] }> {
    const store = this.store.copy();
    store.now = () => timeMs;
    let removed = 0;
    for (const name of [...store.names]) {
      try {
        store.delete(name);
        removed++;
      } catch (error) {
        if (!(error instanceof Immutable)) throw error;
      }
    }
    const whole: number[] = [];
    try {
      using reader = await this.#rig.open([this.#rig.provider], openMemoryTarget(store));
      for (const [point, { content }] of this.known) {
        const [disk] = (await reader.replica.openPoint(point, never)).manifest.disks;
        if (disk !== undefined && Buffer.compare(await reader.content(disk), content) === 0) whole.push(point);
      }
    } catch {
      // Nothing that could be opened was left.
    }
    return { removed, whole };
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rig[Symbol.asyncDispose]();
  }
}

it('every point outlives whoever deletes all that can be deleted, until the day that is said of it', async () => {
  await using site = await LockedSite.create();
  for (let day = 0; day < 50; day++) await site.liveOneDay();
  const [newest] = [...site.known.values()].slice(-1);
  if (newest === undefined) throw new Error('no point');
  expect(newest.untilMs - site.nowMs).toBeGreaterThanOrEqual(periodDays * dayMs);
  const points = [...site.known.keys()];
  // All of them, the oldest too, whose blocks were put and locked seven weeks ago.
  expect((await site.attackedAt(newest.untilMs - 1)).whole).toEqual(points);
  // Nothing is locked for longer than for the period and its spare, and then nothing is left: the attack is one.
  const { removed, whole } = await site.attackedAt(site.nowMs + (periodDays + 10) * dayMs + 1);
  expect(removed).toBe(site.store.names.length);
  expect(whole).toEqual([]);
}, 60_000);

it('so do segments that an interrupted run had put, and locked for less', async () => {
  await using site = await LockedSite.create();
  site.breaksAfterBegin = true;
  await expect(site.liveOneDay()).rejects.toThrow('no entry is taken');
  site.breaksAfterBegin = false;
  const before = site.store.names.filter((name) => name.includes('/segments/'));
  expect(before).not.toEqual([]);
  await site.liveOneDay();
  const [[point, { untilMs }] = [0, { untilMs: 0 }]] = [...site.known];
  expect(untilMs).toBe(site.nowMs + (periodDays + 10) * dayMs);
  expect((await site.attackedAt(untilMs - 1)).whole).toEqual([point]);
  expect(site.adopted).toBe(true);
}, 60_000);

it('objects are touched again only when a generation is over, not in each run', async () => {
  await using site = await LockedSite.create();
  const touched: number[] = [];
  for (let day = 0; day < 24; day++) {
    const before = site.extended;
    await site.liveOneDay();
    touched.push(site.extended - before);
  }
  expect(touched.flatMap((count, day) => (count > 0 ? [day] : []))).toEqual([0, 11, 22]);
}, 60_000);

it('where they can not be locked for longer, the point is published all the same, and the next run goes on', async () => {
  await using site = await LockedSite.create();
  await site.liveOneDay();
  for (let day = 1; day < 11; day++) await site.liveOneDay();
  const [{ untilMs } = { untilMs: 0 }] = [...site.known.values()];
  site.mayExtend = false;
  await expect(site.liveOneDay()).rejects.toMatchObject({
    code: 'IMMUTABILITY_NOT_EXTENDED',
    message: expect.stringContaining(new Date(untilMs).toISOString()),
  });
  site.mayExtend = true;
  await site.liveOneDay();
  const [newest] = [...site.known.values()].slice(-1);
  expect(newest?.untilMs).toBe(site.nowMs + (periodDays + 10) * dayMs);
}, 60_000);

it('points that somebody prunes while a run locks are no reason not to lock the others', async () => {
  await using site = await LockedSite.create();
  for (let day = 0; day < 18; day++) await site.liveOneDay();
  site.wait(60);
  let swept = 0;
  site.meanwhile = async () => {
    swept = await site.pruneAndSweep();
  };
  await site.liveOneDay();
  expect(swept).toBeGreaterThan(0);
  const [newest] = [...site.known.values()].slice(-1);
  expect(newest?.untilMs).toBe(site.nowMs + (periodDays + 10) * dayMs);
}, 60_000);

it.each([
  ['before this run', false],
  ['while this run locks', true],
])(
  'what a process puts that began its generation earlier is locked for as long as another host says %s',
  async (_, meanwhile) => {
    await using site = await LockedSite.create();
    const retention = await site.retentionOfNow();
    if (!meanwhile) await site.liveOneDay({ retention });
    site.wait(5);
    const saidMs = site.nowMs + (periodDays + 10) * dayMs;
    if (meanwhile) site.meanwhile = () => site.claimLock(saidMs);
    else await site.claimLock(saidMs);
    const before = [...site.store.names];
    await site.liveOneDay({ retention });
    const [newest] = [...site.known.values()].slice(-1);
    expect(newest?.untilMs).toBeGreaterThanOrEqual(saidMs);
    expect(site.lockedSince(before)).toBeGreaterThanOrEqual(saidMs);
  },
  60_000,
);

it('a thief of the key who writes that all is locked for ages, and locks nothing, keeps no run from locking', async () => {
  await using site = await LockedSite.create();
  await site.liveOneDay();
  await site.claimLock(site.nowMs + 1000 * 365 * dayMs);
  for (let day = 0; day < 25; day++) await site.liveOneDay();
  // Until that day all of it is there, whatever the chain says beyond.
  const points = [...site.known.keys()];
  expect((await site.attackedAt(site.nowMs + periodDays * dayMs)).whole).toEqual(points);
}, 60_000);

it("dates are the store's: a host whose clock is ten years off locks nothing for ten years", async () => {
  await using site = await LockedSite.create();
  await site.liveOneDay({ hostClockMs: 10 * 365 * dayMs });
  const [{ untilMs } = { untilMs: 0 }] = [...site.known.values()];
  expect(untilMs).toBe(site.nowMs + (periodDays + 10) * dayMs);
  const { removed } = await site.attackedAt(untilMs);
  expect(removed).toBe(site.store.names.length);
}, 60_000);
