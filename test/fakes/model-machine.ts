import { QuiesceUnavailable, SourceNotFound } from '../../hypervisors/errors.ts';
import type {
  Consistency,
  HypervisorConnection,
  Machine,
  MachineRef,
  MachineSnapshot,
  SnapshotOptions,
} from '../../hypervisors/hypervisor.ts';
import { ModelDisk, type ModelDiskStyle, type SourceGate } from './model-disk.ts';
import type { SparseBytes } from './sparse-bytes.ts';

/** A machine in memory, with everything that a hypervisor may do to it. Whatever it does, it keeps the hypervisor contract. */
export class ModelMachine implements HypervisorConnection {
  readonly name: string;
  /** By label. */
  readonly disks = new Map<string, ModelDisk>();
  /** Labels of disks that snapshots leave out, with the reason. */
  readonly excluded = new Map<string, string>();
  readonly attachments = new Map<string, Uint8Array>();
  /** Whether the guest can be frozen. */
  canQuiesce = false;
  now: () => number = Date.now;
  gate: SourceGate = () => Promise.resolve();
  /** Snapshots that nobody has disposed yet. */
  openSnapshots = 0;
  /** What the newest snapshot froze, by label, without the disks that it left out. */
  newest: ReadonlyMap<string, SparseBytes> = new Map();

  constructor(name = 'machine') {
    this.name = name;
  }

  addDisk(label: string, capacityBytes: number, style?: ModelDiskStyle): ModelDisk {
    const disk = new ModelDisk(label, capacityBytes, style);
    this.disks.set(label, disk);
    return disk;
  }

  async *listMachines(signal: AbortSignal): AsyncGenerator<Machine> {
    signal.throwIfAborted();
    const disks = [...this.disks.values()].map(({ label, content }) => ({
      label,
      capacityBytes: content.capacityBytes,
    }));
    yield { name: this.name, disks };
  }

  async snapshot(machine: MachineRef, options: SnapshotOptions, signal: AbortSignal): Promise<MachineSnapshot> {
    signal.throwIfAborted();
    if (machine.name !== this.name) throw new SourceNotFound(`there is no machine ${machine.name}`);
    if (options.quiesce === 'require' && !this.canQuiesce)
      throw new QuiesceUnavailable(`the guest of ${this.name} can't be frozen`);
    await this.gate('snapshot', signal);
    const reached: Consistency =
      options.quiesce !== 'off' && this.canQuiesce ? 'application-consistent' : 'crash-consistent';
    return this.#freeze(reached);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disks.clear();
  }

  #freeze(reached: Consistency): MachineSnapshot {
    const kept = [...this.disks.values()].filter(({ label }) => !this.excluded.has(label));
    const left = [...this.excluded].filter(([label]) => this.disks.has(label));
    this.newest = new Map(kept.map(({ label, content }) => [label, content.copy()]));
    this.openSnapshots++;
    let isOpen = true;
    return {
      takenAt: new Date(this.now()),
      disks: kept.map((disk) => disk.freeze(this.gate)),
      excluded: left.map(([label, reason]) => ({ label, reason })),
      attachments: [...this.attachments].map(([name, bytes]) => ({ name, bytes })),
      frozenMs: null,
      settleConsistency: async (signal) => {
        signal.throwIfAborted();
        await this.gate('settle', signal);
        return reached;
      },
      [Symbol.asyncDispose]: async () => {
        if (isOpen) this.openSnapshots--;
        isOpen = false;
      },
    };
  }
}
