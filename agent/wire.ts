import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseRootFingerprint } from '../crypto/root-fingerprint.ts';
import type { SigningKey } from '../crypto/signing.ts';
import { createSigningKeyFile, loadSigningKeyFile } from '../crypto/signing-key-file.ts';
import { connectHyperv } from '../hypervisors/hyperv/hyperv-connection.ts';
import type { HypervHosts } from '../hypervisors/hyperv/hyperv-hosts.ts';
import type { HypervHost, HypervMachine } from '../hypervisors/hyperv/hyperv-machine.ts';
import { localHost } from '../hypervisors/hyperv/local-host.ts';
import { sshHost } from '../hypervisors/hyperv/ssh-host.ts';
import type { HypervisorConnection } from '../hypervisors/hypervisor.ts';
import { connectImages } from '../hypervisors/image/image-connection.ts';
import { connectKvm } from '../hypervisors/kvm/kvm-connection.ts';
import type { KvmMachine } from '../hypervisors/kvm/kvm-machine.ts';
import { connectVsphere } from '../hypervisors/vsphere/vsphere-connection.ts';
import type { VsphereMachine, VsphereServer } from '../hypervisors/vsphere/vsphere-machine.ts';
import type { OpenRepository } from '../replica/open-repository.ts';
import { isPinName } from '../replica/pins.ts';
import type { Bandwidth } from '../storage-targets/bandwidth.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { Retention, withRetention } from '../storage-targets/with-retention.ts';
import { type WrappedTarget, wrapTarget } from '../storage-targets/wrap-target.ts';
import { ConfigInvalid } from './config/config-invalid.ts';
import type {
  Config,
  HypervHostConfig,
  HypervSourceConfig,
  KvmSourceConfig,
  MachineConfig,
  RepositoryConfig,
  VsphereServerConfig,
  VsphereSourceConfig,
} from './config/config-schema.ts';
import { replaceDurableFile } from './durable-files.ts';
import { openStore } from './open-store.ts';
import { inStateFolder, makeStateFolder, stateError } from './state/state-folder.ts';
import { withReadRate } from './with-read-rate.ts';

/** Builds what the configuration names, in order. A cloud's SDK is loaded only where that cloud is configured. */

/** The store with every policy around it. */
export interface OpenStore extends WrappedTarget {
  /** Of what is put; null where nothing is locked. */
  readonly retention: Retention | null;
}

export async function openTarget(config: Config): Promise<OpenStore> {
  const { inFlight, uploadBytesPerSecond, downloadBytesPerSecond } = config.limits;
  const wrapped = wrapTarget(await openStore(config.repository, inFlight), {
    inFlightMax: inFlight,
    uploadBytesPerSecond,
    downloadBytesPerSecond,
  });
  const immutability = config.repository.target === 'filesystem' ? null : config.repository.immutability;
  if (immutability === null) return { ...wrapped, retention: null };
  const retention = new Retention(immutability.days);
  return { ...wrapped, retention, target: withRetention(wrapped.target, retention, isPinName) };
}

/** `readRate`: of all its disks together. `hosts`: those that machines of Hyper-V share. */
export function connectSource(
  config: Config,
  machine: MachineConfig,
  readRate: Bandwidth,
  hosts: HypervHosts,
): HypervisorConnection {
  return withReadRate(connectHypervisor(config, machine, hosts), readRate);
}

function connectHypervisor(config: Config, { name, source }: MachineConfig, hosts: HypervHosts): HypervisorConnection {
  switch (source.type) {
    case 'image':
      return connectImages([{ name, ...source }]);
    case 'kvm':
      return connectKvm([kvmMachine(config, name, source)]);
    case 'vsphere':
      return connectVsphere([vsphereMachine(config, name, source)]);
    case 'hyperv':
      return connectHyperv([hypervMachine(config, name, source)], hosts);
  }
}

export function kvmMachine(config: Config, name: string, source: KvmSourceConfig): KvmMachine {
  const { libvirt, qmp, guestAgent, domain } = source;
  return {
    name,
    control:
      qmp === undefined
        ? { kind: 'libvirt', uri: libvirt ?? '', domain: domain ?? name }
        : { kind: 'qmp', socket: qmp, guestAgentSocket: guestAgent },
    scratchFolder: source.scratch,
    scratchFreeBytesMin: source.scratchFreeBytesMin,
    excludedDisks: source.exclude,
    attachments: source.attachments,
    tag: trackingTag(config, name),
  };
}

export function vsphereMachine(config: Config, name: string, source: VsphereSourceConfig): VsphereMachine {
  const { from, instanceUuid, path, exclude, tracking, reads, datastoreFreeBytesMin } = source;
  const server = config.sources.find((each) => each.name === from);
  if (server?.type !== 'vsphere') throw unknownSource(from);
  return {
    name,
    server: vsphereServer(server),
    at: instanceUuid === undefined ? { path: path ?? '' } : { instanceUuid },
    excludedDisks: exclude,
    tracking,
    reads,
    datastoreFreeBytesMin,
    tag: trackingTag(config, name),
  };
}

export function hypervMachine(config: Config, name: string, source: HypervSourceConfig): HypervMachine {
  const { from, vm, exclude, tracking, volumeFreeBytesMin } = source;
  const host = config.sources.find((each) => each.name === from);
  if (host?.type !== 'hyperv') throw unknownSource(from);
  return {
    ...{ name, vm, tracking, volumeFreeBytesMin, host: hypervHost(host), excludedDisks: exclude },
    journalFolder: host.journal ?? join(config.state, 'hyperv'),
    tag: trackingTag(config, name),
  };
}

export function hypervHost({ name, powershell, ssh }: HypervHostConfig): HypervHost {
  return ssh === null ? localHost(name, powershell) : sshHost(name, ssh);
}

function unknownSource(name: string): ConfigInvalid {
  return new ConfigInvalid('configuration', [{ line: null, key: 'sources', what: `has no ${name}` }]);
}

export function vsphereServer({ thumbprint, caFile, ...server }: VsphereServerConfig): VsphereServer {
  return { ...server, trust: { thumbprint, caFile } };
}

/** Two repositories may protect the same machine from the same host: each has its own marks in the hypervisor. */
function trackingTag({ repository }: Config, machineName: string): string {
  return createHash('sha256')
    .update(JSON.stringify([...distinguished(repository), machineName]))
    .digest('hex')
    .slice(0, 8);
}

/** What no two repositories have in common. Marks that hypervisors already hold are found by it: it must not change. */
function distinguished(repository: RepositoryConfig): readonly string[] {
  switch (repository.target) {
    case 'filesystem':
      return ['filesystem', repository.directory];
    case 's3':
      return ['s3', repository.endpoint ?? '', repository.bucket, repository.prefix];
    case 'azure-blob':
      return ['azure-blob', repository.endpoint ?? '', repository.account, repository.container, repository.prefix];
    case 'gcs':
      return ['gcs', repository.endpoint ?? '', repository.bucket, repository.prefix];
  }
}

/** Opens the repository under the root key that the configuration pins, or that `init` on this host left in the state folder. */
export async function openPinnedRepository(
  config: Config,
  target: StorageTarget,
  open: (target: StorageTarget, pinned: string, signal: AbortSignal) => Promise<OpenRepository>,
  signal: AbortSignal,
): Promise<OpenRepository> {
  const pinned = config.rootFingerprint ?? readPin(config);
  if (pinned === null) {
    const what = 'is missing: give the fingerprint of the root key, from the recovery kit (fk-root-…)';
    throw new ConfigInvalid('configuration', [{ line: null, key: 'rootFingerprint', what }]);
  }
  return await open(target, pinned, signal);
}

/** For this host's own next commands; others are told the fingerprint by their operator. */
export function pinRoot(config: Config, fingerprint: string): void {
  inStateFolder(config.state, () => replaceDurableFile(pinFile(config), `${fingerprint}\n`));
}

function pinFile(config: Config): string {
  return join(config.state, 'root-fingerprint');
}

function readPin(config: Config): string | null {
  try {
    return parseRootFingerprint(readFileSync(pinFile(config), 'utf8'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw stateError(error, config.state);
  }
}

/** The agent's own signing key; made when it is first needed. */
export async function openAgentKey(config: Config): Promise<SigningKey> {
  const file = join(config.state, 'agent.key');
  makeStateFolder(config.state);
  try {
    return await loadSigningKeyFile(file);
  } catch (error) {
    if (await isMissing(file)) return await makeAgentKey(file, config);
    throw error;
  }
}

async function makeAgentKey(file: string, { state }: Config): Promise<SigningKey> {
  try {
    return await createSigningKeyFile(file);
  } catch (error) {
    throw stateError(error, state);
  }
}

async function isMissing(file: string): Promise<boolean> {
  try {
    await readFile(file);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT';
  }
}
