import { createHash, randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import type { PublishedPoint } from '../../agent/protect/protect-machine.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import type { VerifyReport } from '../../restore/verify/finding.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { usageOf } from '../law/unit-usage.ts';
import { ReplicaRig, type RigOptions } from './replica-rig.ts';
import { RigBucket } from './rig-bucket.ts';
import type { RigWorkers } from './rig-workers.ts';

export const block = 65_536;

/** A machine of two disks and one attachment that is protected, damaged in its bucket, verified and repaired. */
export class RepairStage implements AsyncDisposable {
  readonly rig: ReplicaRig;
  readonly bucket: RigBucket;
  readonly machine = new ModelMachine();
  readonly #truth = new Map<number, ReadonlyMap<string, string>>();

  private constructor(rig: ReplicaRig) {
    this.rig = rig;
    this.bucket = RigBucket.of(rig);
    this.machine.addDisk('system', 300 * block).write(0, randomBytes(40 * block));
    this.machine.addDisk('data', 90 * block + 5).write(60 * block, randomBytes(30 * block + 5));
    this.machine.attachments.set('nvram', randomBytes(280_000));
  }

  static async create(workers: RigWorkers): Promise<RepairStage> {
    return new RepairStage(await ReplicaRig.create(undefined, { workers, inMemory: true }));
  }

  async sync(options: Partial<RigOptions> = {}): Promise<PublishedPoint> {
    const published = await this.rig.protect(this.machine, { segmentBytes: 600_000, ...options });
    const disks = [...this.machine.newest].map(([label, content]) => [label, content.bytes()] as const);
    this.#truth.set(published.point, digests(new Map([...disks, ...this.machine.attachments])));
    return published;
  }

  withState<T>(work: (state: MachineState) => T): T {
    using state = new MachineState(this.rig.stateFolder, 'machine');
    return work(state);
  }

  /** As `failkit verify` does: what it finds is handed to the agent's state. */
  async verify(level: 'ciphertext' | 'full' = 'full'): Promise<VerifyReport> {
    const report = await this.bucket.verify(level);
    this.withState((state) => state.addDamagedSegments(report.repairable));
    return report;
  }

  /** The point is whole by every means, and the chain counts what it uses. */
  async expectWhole(point: number): Promise<void> {
    const report = await this.bucket.verify('full', { points: [point] });
    expect(report).toMatchObject({ hurt: [], doubtful: [], whole: [point] });
    expect(digests(await this.bucket.restore(point))).toEqual(this.#truth.get(point));
    using reader = await this.rig.open();
    const { state } = reader.replica.chain;
    const used = await usageOf((await reader.replica.openPoint(point, this.rig.signal)).manifest, reader);
    for (const [key, { units, dead }] of state.segments) expect([key, units - dead]).toEqual([key, used.get(key) ?? 0]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
  }
}

function digests(content: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, string> {
  return new Map([...content].map(([name, bytes]) => [name, createHash('sha256').update(bytes).digest('hex')]));
}
