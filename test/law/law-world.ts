import { cpSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { PublishedPoint } from '../../agent/protect/protect-machine.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import type { Manifest } from '../../replica/manifest.ts';
import { chainPrefix } from '../../replica/names.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig, wrapOnly } from '../rig/replica-rig.ts';
import type { RigReader } from '../rig/rig-reader.ts';
import type { RigWorkers } from '../rig/rig-workers.ts';
import {
  changedBytesBetween,
  expectedReasons,
  expectGenerations,
  expectReasons,
  type NewestPoint,
} from './expected-run.ts';
import { RunCalls } from './faults.ts';
import { carryOut } from './guest.ts';
import { blocksMax, type History, type HostStep, type RunStep, type Step } from './history.ts';
import { expectRestores, type KnownPoint, rememberSnapshot } from './known-point.ts';
import { expectBirths, expectCountsOf, type UnitUsage, usageOf } from './unit-usage.ts';

/** One machine, one agent host and one bucket, through a history, with an oracle beside them. */

/** Small, so that a run that dies has sent some. */
const segmentBytes = 100_000;
const dayMs = 24 * 3600 * 1000;

/** What the host's state folder is to the chain: `own`: in step; otherwise the agent has to refuse, and the operator has to confirm. */
type HostState = 'own' | 'lost' | 'old';

interface Attempt {
  readonly published: PublishedPoint | null;
  readonly error: unknown;
  readonly calls: RunCalls;
  readonly kmsCalls: number;
}

export class LawWorld implements AsyncDisposable {
  readonly #rig: ReplicaRig;
  readonly #store: MemoryStore;
  readonly #machine = new ModelMachine();
  readonly #known = new Map<number, KnownPoint>();
  readonly #usages = new Map<number, UnitUsage>();
  #newest: NewestPoint | null = null;
  #hostState: HostState = 'own';
  /** A run failed or a host was lost since the newest point: what was sent before may be of use, or may be lost. */
  #isSettled = true;
  /** The host lost its state since it last sent everything: it may lack pages of the map, which only an agent that may decrypt can fetch. */
  #mayLackPages = false;
  readonly #doubted = new Set<string>();
  #chainAtCopy: number | null = null;
  #nowMs = Date.now();

  private constructor(rig: ReplicaRig, store: MemoryStore) {
    this.#rig = rig;
    this.#store = store;
    rig.now = () => this.#nowMs;
    this.#machine.now = () => this.#nowMs;
  }

  static async create(history: Pick<History, 'disks'>, workers: RigWorkers): Promise<LawWorld> {
    const store = new MemoryStore();
    const world = new LawWorld(await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true }), store);
    for (const { bytes, style } of history.disks) world.#machine.addDisk(world.#freeLabel(), bytes, style);
    return world;
  }

  get points(): number {
    return this.#known.size;
  }

  async take(step: Step): Promise<void> {
    this.#nowMs += 60_000;
    if (step.do === 'run') await this.#run(step);
    else if (isHostStep(step)) this.#changeHost(step);
    else carryOut(step, this.#machine, () => this.#freeLabel());
  }

  /** Every point restores, with the key that is left when the KMS is gone. */
  async expectAll(provider: 'kms' | 'recovery'): Promise<void> {
    if (this.#known.size === 0) return;
    const providers = [provider === 'kms' ? this.#rig.provider : this.#rig.recoveryProvider];
    using reader = await this.#rig.open(providers);
    expect(reader.replica.points).toEqual([...this.#known.keys()]);
    for (const [seq, known] of this.#known) await expectRestores(seq, known, reader);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rig[Symbol.asyncDispose]();
  }

  /** Labels of removed disks come back for other disks, as unit numbers of a controller do. */
  #freeLabel(): string {
    let number = 0;
    while (this.#machine.disks.has(`disk-${number}`)) number++;
    return `disk-${number}`;
  }

  #changeHost(step: HostStep): void {
    const copy = join(this.#rig.folder, 'state-copy');
    const state = this.#rig.stateFolder;
    if (step.do === 'wait') {
      this.#nowMs += step.days * dayMs;
    } else if (step.do === 'lose-state') {
      rmSync(state, { recursive: true, force: true });
      if (this.#chainLength() > 0) this.#hostState = 'lost';
      this.#isSettled = false;
      this.#mayLackPages = true;
    } else if (step.do === 'copy-state' && existsSync(state) && this.#hostState === 'own') {
      replaceFolder(state, copy);
      this.#chainAtCopy = this.#chainLength();
    } else if (step.do === 'put-back-state' && this.#chainAtCopy !== null) {
      replaceFolder(copy, state);
      this.#hostState = this.#stateAfterPutBack(this.#chainAtCopy);
      this.#isSettled = false;
      this.#mayLackPages = true;
    }
  }

  /** A state from before the first entry knows of no chain. */
  #stateAfterPutBack(chainAtCopy: number): HostState {
    if (chainAtCopy === this.#chainLength()) return 'own';
    return chainAtCopy === 0 ? 'lost' : 'old';
  }

  #chainLength(): number {
    return this.#store.names.filter((name) => name.startsWith(chainPrefix(this.#rig.machineId))).length;
  }

  async #run(step: RunStep): Promise<void> {
    const expected = expectedReasons(this.#machine, this.#newest, step, this.#doubted);
    const first = await this.#attempt(step, false);
    const refused = this.#expectOwnership(first);
    const attempt = refused ? await this.#attempt({ ...step, fault: null }, true) : first;
    if (attempt.error !== null && !attempt.calls.hasFailed) throw attempt.error;
    if (attempt.published === null) this.#isSettled = false;
    const manifest = await this.#expectNewest(attempt);
    if (attempt.published !== null && manifest !== null) this.#expectRun(step, attempt, manifest, expected);
  }

  /** True when the agent rightly refuses to go on without the operator's word. */
  #expectOwnership({ published, error, calls }: Attempt): boolean {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    const refused = code === 'TAKE_OVER_NEEDED' || code === 'FENCED';
    if (this.#hostState === 'own') {
      if (refused) throw error;
      return false;
    }
    if (!refused && calls.hasFailed) return false;
    expect(published, 'a host that lost its state went on as if nothing had happened').toBeNull();
    expect(code).toBe(this.#hostState === 'lost' ? 'TAKE_OVER_NEEDED' : 'FENCED');
    this.#hostState = 'own';
    return true;
  }

  async #attempt(step: RunStep, takeOver: boolean): Promise<Attempt> {
    const state = this.#rig.stateFolder;
    const atKill = join(this.#rig.folder, 'state-at-kill');
    const calls = new RunCalls(step.fault, () => replaceFolder(state, atKill));
    const kms = countKmsCalls(step.access === 'full' ? this.#rig.provider : wrapOnly(this.#rig.provider));
    this.#machine.gate = calls.source;
    const options = { access: step.access, resync: step.resync, takeOver, blocksMax, segmentBytes };
    const target = openMemoryTarget(this.#store, calls.store);
    let published: PublishedPoint | null = null;
    let error: unknown = null;
    try {
      published = await this.#rig.protect(this.#machine, {
        ...options,
        provider: kms.provider,
        target,
        signal: calls.signal,
      });
    } catch (thrown) {
      error = thrown;
    }
    calls.isOver = true;
    if (existsSync(atKill)) {
      replaceFolder(atKill, state);
      rmSync(atKill, { recursive: true });
    }
    expect(this.#machine.openSnapshots, 'a snapshot was left behind').toBe(0);
    return { published, error, calls, kmsCalls: kms.calls };
  }

  /** The points that the bucket holds now; the new one, if there is one, is the newest snapshot's. */
  async #expectNewest({ published, calls }: Attempt): Promise<Manifest | null> {
    if (this.#chainLength() === 0) return null;
    using reader = await this.#rig.open();
    const { points } = reader.replica;
    const added = points.filter((seq) => !this.#known.has(seq));
    expect(calls.callsAfterEnd, 'a run went on after its end').toBe(0);
    expect(points.filter((seq) => this.#known.has(seq))).toEqual([...this.#known.keys()]);
    expect(added.length).toBeLessThanOrEqual(1);
    if (published !== null) expect(added).toEqual([published.point]);
    for (const seq of added) this.#known.set(seq, rememberSnapshot(this.#machine));
    return await this.#expectPoint(added[0], reader);
  }

  async #expectPoint(seq: number | undefined, reader: RigReader): Promise<Manifest | null> {
    const known = seq === undefined ? undefined : this.#known.get(seq);
    if (seq === undefined || known === undefined) return null;
    const manifest = await expectRestores(seq, known, reader);
    this.#usages.set(seq, await usageOf(manifest, reader));
    expectCountsOf(reader.replica.chain.state, this.#usages);
    await expectBirths(reader.replica.chain.state, seq, this.#store, reader);
    this.#before = this.#newest;
    this.#newest = { manifest, known };
    return manifest;
  }

  #before: NewestPoint | null = null;

  #expectRun(step: RunStep, attempt: Attempt, manifest: Manifest, reasons: ReadonlyMap<string, RegExp>): void {
    const wasSettled = this.#isSettled;
    this.#isSettled = true;
    const { operations } = attempt.calls;
    const puts = operations.filter(({ kind, name }) => kind === 'put' && !name.includes('/keys/')).length - 1;
    expect(puts).toBeLessThanOrEqual(Math.ceil(manifest.uploadedBytes / segmentBytes) + 2);
    const known = this.#newest?.known;
    if (step.access === 'write-only' && this.#mayLackPages && sentAgain(manifest)) {
      this.#mayLackPages = false;
      return;
    }
    if (known === undefined || !(wasSettled || step.access === 'full')) return;
    expectReasons(manifest, reasons);
    expectGenerations(manifest, this.#before);
    const expected = changedBytesBetween(manifest, known, this.#before);
    const lost = manifest.disks.some(({ fullReadReason }) => /^resync: (disk|spot check)/.test(fullReadReason));
    if (wasSettled && !lost) expect(manifest.changedBytes).toBe(expected);
    else if (!lost) expect(manifest.changedBytes).toBeLessThanOrEqual(expected);
    // A page that is missing here may lie in a segment of an older epoch.
    if (wasSettled && !this.#mayLackPages) expect(attempt.kmsCalls, 'KMS calls').toBeLessThanOrEqual(1);
    if (expected === 0 && !lost && manifest.attachments.length === 0 && wasSettled) this.#expectNothingSent(manifest);
  }

  /** Maps may change where blocks went; content that is there already is never sent again. */
  #expectNothingSent(manifest: Manifest): void {
    expect(manifest.uploadedBytes).toBeLessThan(64 * 1024 * manifest.disks.length + 1);
  }
}

function sentAgain(manifest: Manifest): boolean {
  return manifest.disks.every(({ fullReadReason }) => fullReadReason.endsWith('everything is sent again'));
}

function isHostStep(step: Step): step is HostStep {
  return ['wait', 'lose-state', 'copy-state', 'put-back-state'].includes(step.do);
}

function replaceFolder(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  cpSync(from, to, { recursive: true });
}

/** Counts every call that would reach a KMS. */
function countKmsCalls(provider: KeyProvider): { readonly provider: KeyProvider; calls: number } {
  const counted = {
    calls: 0,
    provider: {
      ...provider,
      generateDataKey: (...args: Parameters<KeyProvider['generateDataKey']>) => {
        counted.calls++;
        return provider.generateDataKey(...args);
      },
      wrap: (...args: Parameters<KeyProvider['wrap']>) => {
        counted.calls++;
        return provider.wrap(...args);
      },
      unwrap: (...args: Parameters<KeyProvider['unwrap']>) => {
        counted.calls++;
        return provider.unwrap(...args);
      },
    },
  };
  return counted;
}
