/** A vCenter of our own making (see recipes/vcsim/main.go): a process of its own, whose disks are files that a test writes to. */
import { writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { json, text } from 'node:stream/consumers';
import { canaries } from '../canary.ts';
import { peerFolder, peerNeeds, startServer } from './server-process.ts';
import { type LoopbackCertificate, makeCertificate } from './tls-certificate.ts';

/** What is missing, or null. */
export const vcsimNeeds = () => peerNeeds('vcsim');

export interface VcsimOptions {
  /** A single ESXi host, not a vCenter. */
  readonly esx?: boolean;
  /** For each host and cluster; a vCenter has one of either. */
  readonly machines?: number;
  readonly capacityBytes?: number;
}

export interface VcsimDisk {
  readonly machine: string;
  readonly machineRef: string;
  readonly key: number;
  /** Where it is attached, `scsi0:1`. */
  readonly label: string;
  /** `[datastore] folder/name.vmdk` that the guest writes to. */
  readonly file: string;
  /** What the guest's disk holds: a test may write to it at any time, but not change its size. */
  readonly live: string;
  readonly capacityBytes: number;
}

/** What the disks held when a snapshot was made; of snapshots that are gone, the newest few. */
export interface VcsimPoint {
  readonly snapshot: string;
  readonly name: string;
  readonly gone: boolean;
  readonly disks: readonly {
    readonly key: number;
    readonly label: string;
    readonly file: string;
    readonly path: string;
    readonly changeId: string;
    readonly capacityBytes: number;
  }[];
}

/** All of it is set at once; what is left out is as it was at the start. */
export interface VcsimBehaviour {
  /** What one answer about changed areas covers at most. */
  readonly windowBytes?: number;
  /** Of one answer. */
  readonly extentsMax?: number;
  /** Blocks that are reported though nobody wrote to them. */
  readonly overReported?: number;
  /** Changed areas that are not reported. */
  readonly omittedAreas?: number;
  /** How long tasks about snapshots run. */
  readonly taskDelayMs?: number;
  /** Asked to quiesce, it does not, and says nothing. */
  readonly toolsMissing?: boolean;
  /** Of the time that the server says it is. */
  readonly clockAheadMs?: number;
  /** Privileges that the account does not have. */
  readonly lacking?: readonly string[];
  /** Removed snapshots leave their files behind. */
  readonly needsConsolidation?: boolean;
}

export interface VcsimHurt {
  /** `QueryChangedDiskAreas`, `CreateSnapshot_Task`, …; `PUT`: a file that is uploaded. */
  readonly method: string;
  /** `fault`: the answer; `task`: what the task ends with; `lose-answer`: it is done, and nobody hears of it; `hang`: nothing happens. */
  readonly how: 'fault' | 'task' | 'lose-answer' | 'hang';
  /** `FileFault`, `FileLocked`, `ApplicationQuiesceFault`, … */
  readonly fault?: string;
  /** The file or the argument that the fault is about. */
  readonly property?: string;
  /** Calls that go well first. */
  readonly skip?: number;
  /** Calls that are hurt; 1 if left out. */
  readonly times?: number;
}

export interface Vcsim extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly certificate: LoopbackCertificate;
  /** `SNAPSHOT/PATH` in it is what the stand-in for VDDK serves. */
  readonly pointsFolder: string;
  disks(machine: string): Promise<readonly VcsimDisk[]>;
  /** Oldest first. */
  points(machine: string): Promise<readonly VcsimPoint[]>;
  /** Calls by method since this was asked last. */
  calls(): Promise<Readonly<Record<string, number>>>;
  behave(behaviour: VcsimBehaviour): Promise<void>;
  hurt(rule: VcsimHurt): Promise<void>;
  heal(): Promise<void>;
  /** Kills that process when it made its nth call from now on: it is done, and nobody hears the answer. Questions are not counted. */
  killAt(pid: number, nth: number): Promise<void>;
  /** What a datastore says it has left. */
  setFree(datastore: string, bytes: number): Promise<void>;
  /** `VMFS`, `NFS`, `vsan`, … */
  setKind(datastore: string, kind: string): Promise<void>;
  /** Of a new category. */
  tag(machine: string, category: string, name: string): Promise<void>;
  /** Where `[datastore] folder/name` lies on this host. */
  pathOf(file: string): Promise<string>;
  /** As if they had been idle for too long. */
  endSessions(): Promise<void>;
  /** Of the services: no connection, session or finished task survives it, all machines do. */
  restart(downMs: number): Promise<void>;
  /** Older change ids mean nothing any more. */
  resetTracking(machine: string, disk: number): Promise<void>;
  resizeDisk(machine: string, disk: number, capacityBytes: number): Promise<void>;
  /** Returns its key. */
  addDisk(machine: string, capacityBytes: number): Promise<number>;
  removeDisk(machine: string, disk: number): Promise<void>;
  /** Somebody else's. Returns its reference. */
  addSnapshot(machine: string, name: string): Promise<string>;
  removeSnapshot(machine: string, reference: string): Promise<void>;
  /** The end of what it printed. */
  logTail(): string;
}

const user = 'agent@vsphere.local';
const defaultCapacityBytes = 8 * 1024 * 1024;

export async function startVcsim(options: VcsimOptions = {}): Promise<Vcsim> {
  const { esx = false, machines = 1, capacityBytes = defaultCapacityBytes } = options;
  await using opening = new AsyncDisposableStack();
  const certificate = opening.use(await makeCertificate());
  const { password } = canaries();
  const server = await startServer({
    name: 'vcsim',
    command: (folder, port) => {
      const { certFile, keyFile } = certificate;
      const listen = `127.0.0.1:${port}`;
      const settings = { listen, certFile, keyFile, user, password, folder, esx, machines, capacityBytes };
      writeFileSync(join(folder, 'settings.json'), JSON.stringify(settings), { mode: 0o600 });
      return [join(peerFolder('vcsim'), 'vcsim'), join(folder, 'settings.json')];
    },
  });
  opening.defer(server.stop);
  const control = join(server.folder, 'control');
  const order = <T = void>(action: string, body: object = {}): Promise<T> => ask<T>(control, action, body);
  const pointsFolder = join(server.folder, 'points');
  await mkdir(pointsFolder, { recursive: true });
  const held = opening.move();
  return {
    ...{ host: '127.0.0.1', port: server.port, user, password, certificate, pointsFolder, logTail: server.logTail },
    disks: (machine) => order('disks', { machine }),
    points: (machine) => order('points', { machine }),
    calls: () => order('calls'),
    behave: (behaviour) => order('behave', behaviour),
    hurt: (rule) => order('hurt', rule),
    heal: () => order('heal'),
    killAt: (pid, nth) => order('kill-at', { pid, nth }),
    setFree: (datastore, bytes) => order('set-datastore', { name: datastore, capacityBytes: bytes }),
    setKind: (datastore, kind) => order('set-datastore', { name: datastore, category: kind }),
    tag: (machine, category, name) => order('tag', { machine, category, name }),
    pathOf: (file) => order('path-of', { name: file }),
    endSessions: () => order('end-sessions'),
    restart: (downMs) => order('restart', { downMs }),
    resetTracking: (machine, disk) => order('reset-tracking', { machine, disk }),
    resizeDisk: (machine, disk, capacity) => order('resize-disk', { machine, disk, capacityBytes: capacity }),
    addDisk: (machine, capacity) => order('add-disk', { machine, capacityBytes: capacity }),
    removeDisk: (machine, disk) => order('remove-disk', { machine, disk }),
    addSnapshot: (machine, name) => order('add-snapshot', { machine, name }),
    removeSnapshot: (machine, name) => order('remove-snapshot', { machine, name }),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function ask<T>(socketPath: string, action: string, body: object): Promise<T> {
  const asked = request({ socketPath, path: `/${action}`, method: 'POST', agent: false });
  asked.end(JSON.stringify(body));
  const answered = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    asked.once('response', resolve);
    asked.once('error', reject);
  });
  if (answered.statusCode !== 200) throw new Error(`vcsim refused ${action}: ${(await text(answered)).trim()}`);
  const { result } = (await json(answered)) as { readonly result: T };
  return result;
}
