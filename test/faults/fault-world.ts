import { createCipheriv, createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { toHex } from '../../replica/encoding.ts';
import { segmentsPrefix } from '../../replica/names.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import type { SparseBytes } from '../fakes/sparse-bytes.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import type { RigWorkers } from '../rig/rig-workers.ts';

/** A small machine, its replica in memory and its state folder: the same beginning for each run of a sweep. */

const segmentBytes = 512 * 1024;
/** State folders of thousands of runs, where a sync costs nothing: power losses are tested elsewhere. */
const quickFolder = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
export const segmentsInFlightMax = 2;
export const runOptions = { segmentBytes, segmentsInFlightMax };

/** SHA-256 of each disk by label, by point. */
export type KnownPoints = ReadonlyMap<number, ReadonlyMap<string, string>>;

export class FaultWorld implements AsyncDisposable {
  readonly rig: ReplicaRig;
  readonly machine: ModelMachine;
  readonly store: MemoryStore;
  readonly points = new Map<number, ReadonlyMap<string, string>>();

  private constructor(rig: ReplicaRig, machine: ModelMachine, store: MemoryStore) {
    this.rig = rig;
    this.machine = machine;
    this.store = store;
  }

  static async create(workers: RigWorkers): Promise<FaultWorld> {
    const store = new MemoryStore();
    const rig = await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true });
    const machine = new ModelMachine();
    machine.addDisk('root', 2_500_001).write(0, noise('root', 2_000_000));
    machine.addDisk('data', 700_000).write(100_000, noise('data', 300_000));
    machine.attachments.set('nvram', noise('nvram', 5_000));
    return new FaultWorld(rig, machine, store);
  }

  /** A clean run. */
  async publish(): Promise<void> {
    const { point } = await this.rig.protect(this.machine, runOptions);
    this.points.set(point, contentOf(this.machine.newest));
  }

  /** Different blocks of both disks, a discard and a new attachment. */
  change(seed: string): void {
    const { machine } = this;
    machine.disks.get('root')?.write(300_000, noise(`${seed} root`, 900_000));
    machine.disks.get('root')?.discard(1_500_000, 200_000);
    machine.disks.get('data')?.write(0, noise(`${seed} data`, 50_000));
    machine.attachments.set('nvram', noise(`${seed} nvram`, 5_000));
  }

  /** A copy of bucket and state folder, to be spoilt. */
  fork(): Fork {
    return new Fork(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
  }
}

export class Fork implements Disposable {
  readonly #world: FaultWorld;
  readonly store: MemoryStore;
  readonly folder: string;

  constructor(world: FaultWorld) {
    this.#world = world;
    this.store = world.store.copy();
    this.folder = mkdtempSync(join(quickFolder, 'failkit-fault-'));
    if (existsSync(world.rig.stateFolder)) cpSync(world.rig.stateFolder, this.stateFolder, { recursive: true });
  }

  get stateFolder(): string {
    return join(this.folder, 'state');
  }

  /** Where a restore of that disk is written to. */
  outputPath(label: string): string {
    return join(this.folder, `${label}.raw`);
  }

  /** Throws unless exactly these disks were restored, with nothing else beside them. */
  requireOutputs(disks: ReadonlyMap<string, string>): void {
    const outputs = readdirSync(this.folder).filter((name) => name !== 'state');
    const found = outputs.map(
      (name) => [name.replace(/\.raw$/, ''), sha256(readFileSync(join(this.folder, name)))] as const,
    );
    if (!sameContent(new Map(found), disks)) throw new Error(`restored were ${outputs.join(', ')}`);
  }

  /** Every known point reads as it did. Throws where one does not. */
  async requirePoints(points: KnownPoints): Promise<void> {
    if (points.size === 0) return;
    using reader = await this.#world.rig.open([this.#world.rig.provider], openMemoryTarget(this.store));
    for (const [point, disks] of points) {
      const { manifest } = await reader.replica.openPoint(point, this.#world.rig.signal);
      const found = new Map<string, string>();
      for (const disk of manifest.disks) found.set(disk.label, sha256(await reader.content(disk)));
      if (!sameContent(found, disks)) throw new Error(`point ${point} does not restore as it was`);
    }
  }

  /** The next run of the same agent, with nothing in its way; its point must be what the machine holds. */
  async publishNext(points: KnownPoints, takeOver = false): Promise<void> {
    const { rig, machine } = this.#world;
    const target = openMemoryTarget(this.store);
    const { point } = await rig.protect(machine, { ...runOptions, target, stateFolder: this.stateFolder, takeOver });
    await this.requirePoints(new Map([...points, [point, contentOf(machine.newest)]]));
  }

  /** Segments in the bucket that no point ever gave birth to. */
  async orphans(): Promise<readonly string[]> {
    using reader = await this.#world.rig.open([this.#world.rig.provider], openMemoryTarget(this.store));
    const prefix = segmentsPrefix(this.#world.rig.machineId);
    const born = new Set(
      [...reader.replica.chain.state.segments.values()].map(({ tenure, number }) => `${tenure}.${number}`),
    );
    const names = this.store.names.filter((name) => name.startsWith(prefix));
    return names.filter((name) => {
      const [tenure, number] = name.slice(prefix.length).split('/').map(Number);
      return !born.has(`${tenure}.${number}`);
    });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function contentOf(disks: ReadonlyMap<string, SparseBytes>): ReadonlyMap<string, string> {
  return new Map([...disks].map(([label, content]) => [label, sha256(content.bytes())]));
}

function sameContent(left: ReadonlyMap<string, string>, right: ReadonlyMap<string, string>): boolean {
  return left.size === right.size && [...left].every(([label, digest]) => right.get(label) === digest);
}

function sha256(bytes: Uint8Array): string {
  return toHex(createHash('sha256').update(bytes).digest());
}

/** Bytes that don't compress, the same for the same seed. */
export function noise(seed: string, length: number): Uint8Array {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}
