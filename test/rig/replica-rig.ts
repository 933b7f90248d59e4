import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ProtectOptions, type PublishedPoint, protectMachine } from '../../agent/protect/protect-machine.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { createLocalKeyFile, openLocalKey } from '../../crypto/local-key.ts';
import { generateRecoveryKey, type RecoveryKeyPair } from '../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import type { HypervisorConnection } from '../../hypervisors/hypervisor.ts';
import { createRepository } from '../../replica/create-repository.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { restoreDisk } from '../../restore/restore-disk.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { openRawSink } from '../../restore/sinks/raw-sink.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';

/** One repository and one machine in a temporary folder, with everything real: for tests that seed, sync and restore. */
export class ReplicaRig implements AsyncDisposable {
  readonly folder: string;
  readonly target: StorageTarget;
  readonly root: SigningKey;
  readonly agent: SigningKey;
  readonly recovery: RecoveryKeyPair;
  readonly provider: KeyProvider;
  readonly machineId = Uint8Array.from(randomBytes(16));
  readonly signal = new AbortController().signal;
  now: () => number = Date.now;

  private constructor(parts: Pick<ReplicaRig, 'folder' | 'target' | 'root' | 'agent' | 'recovery' | 'provider'>) {
    this.folder = parts.folder;
    this.target = parts.target;
    this.root = parts.root;
    this.agent = parts.agent;
    this.recovery = parts.recovery;
    this.provider = parts.provider;
  }

  static async create(target?: StorageTarget): Promise<ReplicaRig> {
    const folder = mkdtempSync(join(tmpdir(), 'failkit-rig-'));
    mkdirSync(join(folder, 'bucket'));
    const store = target ?? (await openFilesystemTarget({ directory: join(folder, 'bucket') }));
    const root = SigningKey.generate();
    const agent = SigningKey.generate();
    const recovery = await recoveryKeyOfAllRigs();
    await createLocalKeyFile(join(folder, 'local.key'));
    const provider = await openLocalKey(join(folder, 'local.key'));
    const fields = { root, recoveryPublicKey: recovery.publicKey, agents: [agent.publicKey], createdMs: Date.now() };
    await createRepository(store, fields, new AbortController().signal);
    return new ReplicaRig({ folder, target: store, root, agent, recovery, provider });
  }

  get stateFolder(): string {
    return join(this.folder, 'state');
  }

  /** One run; `connection` gives the machine named `machine`. */
  async protect(connection: HypervisorConnection, options: Partial<RigOptions> = {}): Promise<PublishedPoint> {
    const {
      agent = this.agent,
      provider = this.provider,
      stateFolder = this.stateFolder,
      signal = this.signal,
      target = this.target,
      ...rest
    } = options;
    const repo = await openRepository(target, rootFingerprint(this.root.publicKey), signal);
    using state = new MachineState(stateFolder, 'machine');
    const progress = { readBytes: 0, changedBytes: 0, skippedBytes: 0, capacityBytes: 0, uploadedBytes: 0 };
    const context = {
      repo,
      machineId: this.machineId,
      machineName: 'machine',
      connection,
      provider,
      agent,
      state,
      progress,
      now: this.now,
    };
    return await protectMachine({ ...context, options: { ...defaults, ...rest } }, signal);
  }

  /** The disk's whole content at that point. */
  async restore(
    point: number,
    label: string,
    providers: readonly KeyProvider[] = [this.provider],
  ): Promise<Uint8Array> {
    const repo = await openRepository(this.target, rootFingerprint(this.root.publicKey), this.signal);
    using replica = await OpenReplica.open(repo, this.machineId, providers, this.signal);
    const { manifest } = await replica.openPoint(point, this.signal);
    const disk = manifest.disks.find((candidate) => candidate.label === label);
    if (disk === undefined) throw new Error(`point ${point} has no disk ${label}`);
    using reader = new SegmentReader(repo, this.machineId, replica.keys);
    await using workers = new RestoreWorkers(1);
    const path = join(this.folder, `restored-${point}-${label}`);
    {
      await using sink = await openRawSink({
        path,
        capacityBytes: disk.capacityBytes,
        force: true,
        contentName: `${point}`,
      });
      const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
      await restoreDisk(
        disk,
        sink,
        { reader, keys: replica.keys, workers, rangesInFlightMax: 4, progress },
        this.signal,
      );
      await sink.complete(this.signal);
    }
    const content = readFileSync(path);
    rmSync(path);
    return content;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.target[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export interface RigOptions extends ProtectOptions {
  readonly agent: SigningKey;
  readonly provider: KeyProvider;
  readonly stateFolder: string;
  readonly signal: AbortSignal;
  readonly target: StorageTarget;
}

const defaults: ProtectOptions = {
  access: 'full',
  sourceKind: 'image',
  snapshot: { quiesce: 'off', whenChanging: 'refuse' },
  resync: false,
  takeOver: false,
  segmentBytes: 4 * 2 ** 20,
  compressionLevel: 1,
  workers: 1,
  segmentsInFlightMax: 4,
};

let recoveryKey: Promise<RecoveryKeyPair> | null = null;

/** An RSA pair takes a while to make. */
async function recoveryKeyOfAllRigs(): Promise<RecoveryKeyPair> {
  recoveryKey ??= generateRecoveryKey();
  return await recoveryKey;
}
