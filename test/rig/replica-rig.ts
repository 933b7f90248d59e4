import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ProtectOptions, type PublishedPoint, protectMachine } from '../../agent/protect/protect-machine.ts';
import { noProgress } from '../../agent/protect/replicate-snapshot.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import { KeyRefused } from '../../crypto/errors.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { createLocalKeyFile, openLocalKey } from '../../crypto/local-key.ts';
import { generateRecoveryKey, type RecoveryKeyPair, recoveryKeyFromPem } from '../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import type { HypervisorConnection } from '../../hypervisors/hypervisor.ts';
import { createRepository } from '../../replica/create-repository.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { openRawSink } from '../../restore/sinks/raw-sink.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import type { Retention } from '../../storage-targets/with-retention.ts';
import { RigReader } from './rig-reader.ts';
import { RigWorkers } from './rig-workers.ts';

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
  readonly workers: RigWorkers;
  readonly #ownsWorkers: boolean;
  now: () => number = Date.now;

  private constructor(
    parts: Pick<ReplicaRig, 'folder' | 'target' | 'root' | 'agent' | 'recovery' | 'provider'>,
    workers: RigWorkers | undefined,
  ) {
    this.workers = workers ?? new RigWorkers();
    this.#ownsWorkers = workers === undefined;
    this.folder = parts.folder;
    this.target = parts.target;
    this.root = parts.root;
    this.agent = parts.agent;
    this.recovery = parts.recovery;
    this.provider = parts.provider;
  }

  /** A target of its own where none is given. */
  static async create(target?: StorageTarget, options: RigSetup = {}): Promise<ReplicaRig> {
    const inMemory = options.inMemory === true && existsSync(memoryFolder);
    const folder = mkdtempSync(join(inMemory ? memoryFolder : tmpdir(), 'failkit-rig-'));
    mkdirSync(join(folder, 'bucket'));
    const store = target ?? (await openFilesystemTarget({ directory: join(folder, 'bucket') }));
    const root = SigningKey.generate();
    const agent = SigningKey.generate();
    const recovery = await recoveryKeyOfAllRigs();
    await createLocalKeyFile(join(folder, 'local.key'));
    const provider = await openLocalKey(join(folder, 'local.key'));
    const fields = { root, recoveryPublicKey: recovery.publicKey, agents: [agent.publicKey], createdMs: Date.now() };
    await createRepository(store, fields, new AbortController().signal);
    return new ReplicaRig({ folder, target: store, root, agent, recovery, provider }, options.workers);
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
      retention = null,
      ...rest
    } = options;
    const repo = await openRepository(target, rootFingerprint(this.root.publicKey), signal);
    using state = new MachineState(stateFolder, 'machine');
    const progress = noProgress();
    const context = {
      repo,
      machineId: this.machineId,
      machineName: 'machine',
      connection,
      provider,
      agent,
      state,
      workers: this.workers.pipeline,
      progress,
      retention,
      now: this.now,
    };
    const published = await protectMachine({ ...context, options: { ...defaults, ...rest } }, signal);
    requireCounted(published.manifest);
    return published;
  }

  /** The recovery kit's key, which opens everything when the KMS is gone. */
  get recoveryProvider(): KeyProvider {
    return recoveryKeyFromPem(this.recovery.privatePem);
  }

  /** The replica as a restorer sees it now, from the bucket alone. */
  async open(providers: readonly KeyProvider[] = [this.provider], target = this.target): Promise<RigReader> {
    const repo = await openRepository(target, rootFingerprint(this.root.publicKey), this.signal);
    return await RigReader.open(repo, this.machineId, providers, this.workers.restore, this.signal);
  }

  /** The disk's whole content at that point. */
  async restore(
    point: number,
    label: string,
    providers: readonly KeyProvider[] = [this.provider],
  ): Promise<Uint8Array> {
    using reader = await this.open(providers);
    const { manifest } = await reader.replica.openPoint(point, this.signal);
    const disk = manifest.disks.find((candidate) => candidate.label === label);
    if (disk === undefined) throw new Error(`point ${point} has no disk ${label}`);
    const path = join(this.folder, `restored-${point}-${label}`);
    {
      const { capacityBytes } = disk;
      await using sink = await openRawSink({ path, capacityBytes, force: true, contentName: `${point}` });
      await reader.restoreInto(disk, sink);
    }
    const content = readFileSync(path);
    rmSync(path);
    return content;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ownsWorkers) await this.workers[Symbol.asyncDispose]();
    await this.target[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export interface RigSetup {
  /** Not disposed with the rig. */
  readonly workers?: RigWorkers;
  /** Keep the folder in memory where the system has a place for that: most of a small run is waiting for the disk. */
  readonly inMemory?: boolean;
}

const memoryFolder = '/dev/shm';

/** The same key encryption key, for an agent whose credentials may not decrypt. */
export function wrapOnly(provider: KeyProvider): KeyProvider {
  return {
    ...provider,
    unwrap: () => Promise.reject(new KeyRefused(`${provider.keyId}: these credentials may not unwrap`)),
  };
}

export interface RigOptions extends ProtectOptions {
  readonly agent: SigningKey;
  readonly provider: KeyProvider;
  readonly stateFolder: string;
  readonly signal: AbortSignal;
  readonly target: StorageTarget;
  readonly retention: Retention | null;
}

const defaults: ProtectOptions = {
  access: 'full',
  sourceKind: 'image',
  snapshot: { quiesce: 'off', whenChanging: 'refuse' },
  resync: false,
  takeOver: false,
  segmentBytes: 4 * 2 ** 20,
  compression: 1,
  workers: 1,
  segmentsInFlightMax: 4,
  spotCheck: { everyMs: 30 * 24 * 3_600_000, bytesPerRunMax: 2 ** 30 },
  changeAlarm: { enabled: true, fromBytes: 512 * 2 ** 20 },
  compaction: { share: 0.25, bytesPerRunMax: 2 ** 30 },
};

let recoveryKey: Promise<RecoveryKeyPair> | null = null;

/** An RSA pair takes a while to make. */
async function recoveryKeyOfAllRigs(): Promise<RecoveryKeyPair> {
  recoveryKey ??= generateRecoveryKey();
  return await recoveryKey;
}

/** What is sent was read before; the last block of a disk may end beyond it. */
function requireCounted({ readBytes, changedBytes, disks }: PublishedPoint['manifest']): void {
  const paddingBytes = disks.reduce((sum, { blockSize }) => sum + blockSize, 0);
  if (readBytes + paddingBytes < changedBytes)
    throw new Error(`a point with ${changedBytes} changed bytes, of which only ${readBytes} were read`);
}
