import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { sha256 } from '../../crypto/suite.ts';
import { type ChainHead, openChain } from '../../replica/chain.ts';
import { createRepository } from '../../replica/create-repository.ts';
import { toHex } from '../../replica/encoding.ts';
import { encodeKeyRecord } from '../../replica/key-record.ts';
import { KeyRing } from '../../replica/key-ring.ts';
import { keyRecordName } from '../../replica/names.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { putOnce } from '../../replica/put-once.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import { addTrust } from '../fixtures/change-trust.ts';
import { DiskImages, type MachineContent, noise, prose } from '../fixtures/disk-images.ts';
import { appendEntry } from '../protocol/append-entry.ts';
import { ReplicaRig, type RigOptions } from '../rig/replica-rig.ts';
import { type Objects, readObjects } from './bucket-directory.ts';

/**
 * The replicas that the sweep hurts: two machines of two disks in one repository, several points, two key epochs, a summary; and
 * what an adversary could have kept beside: earlier states, a fork, another repository of the same customer.
 */

const blockBytes = 65_536;
const dayMs = 24 * 3600 * 1000;
const never = new AbortController().signal;

export interface MachineSpecimen {
  readonly id: Uint8Array;
  readonly hex: string;
  readonly points: ReadonlyMap<number, MachineContent>;
  /** What the agent's local mark remembers. */
  readonly head: ChainHead;
}

export interface Specimen {
  readonly rig: ReplicaRig;
  readonly objects: Objects;
  readonly machines: readonly MachineSpecimen[];
  /** The same bucket at earlier times, oldest first. */
  readonly earlier: readonly Objects[];
  /** The same bucket, had a clone of the agent written the last point of the first machine. */
  readonly fork: Objects;
  /** A repository under the same root, agent and keys, with a machine of the same id. */
  readonly stranger: Objects;
}

/** One machine's life in one repository. */
class Author {
  readonly id: Uint8Array;
  readonly points = new Map<number, MachineContent>();
  readonly rig: ReplicaRig;
  readonly images: DiskImages;
  readonly stateFolder: string;
  readonly target: ReplicaRig['target'];

  constructor(rig: ReplicaRig, folderName: string, id: Uint8Array = randomBytes(16), target = rig.target) {
    const folder = join(rig.folder, folderName);
    mkdirSync(folder);
    this.rig = rig;
    this.id = Uint8Array.from(id);
    this.target = target;
    this.stateFolder = join(folder, 'state');
    this.images = new DiskImages(folder, { system: 5 * blockBytes + 100, data: 70 * blockBytes });
  }

  /** The rig writes for one machine: this is the same rig, for another one. */
  async publish(options: Partial<RigOptions> = {}): Promise<number> {
    const rig: ReplicaRig = Object.create(this.rig, { machineId: { value: this.id } });
    const own = { stateFolder: this.stateFolder, target: this.target, segmentBytes: 100_000 };
    return (await rig.protect(this.images.connect(), { ...own, ...options })).point;
  }

  async point(options: Partial<RigOptions> = {}): Promise<void> {
    this.points.set(await this.publish(options), this.images.capture());
  }

  async seed(): Promise<void> {
    const { images } = this;
    const seed = toHex(this.id);
    images.attach('machine.xml', prose(seed, 500));
    images.attach('nvram', prose(`nvram ${seed}`, 300_000));
    images.write('system', 0, noise(`boot ${seed}`, 2 * blockBytes));
    images.write('system', 5 * blockBytes, noise(`tail ${seed}`, 100));
    images.write('data', 0, prose(`files ${seed}`, 5 * blockBytes));
    images.write('data', 66 * blockBytes, noise(`more ${seed}`, 4 * blockBytes));
    await this.point();
  }

  /** So many segments that the births do not fit into the entry. */
  async seedWide(): Promise<void> {
    for (let i = 0; i < 1900; i++) this.images.attach(`file-${i}`, prose(`${i}`, 64));
    await this.point({ segmentBytes: 1, segmentsInFlightMax: 16 });
  }

  /** One block that does not compress on each disk: records of one size, in every point and every fork. */
  change(name: string): void {
    this.images.write('system', 3 * blockBytes, noise(`system ${name}`, blockBytes));
    this.images.write('data', 3 * blockBytes, noise(`data ${name}`, blockBytes));
  }

  async sync(name: string): Promise<void> {
    this.change(name);
    await this.point();
  }

  async openRepo(): Promise<OpenRepository> {
    return await openRepository(this.target, rootFingerprint(this.rig.root.publicKey), never);
  }

  async lock(): Promise<number> {
    const repo = await this.openRepo();
    const chain = await openChain(repo, this.id, never);
    if (
      chain === null ||
      !(await appendEntry(repo, chain, { type: 'lock', generation: 1, untilMs: 5 }, this.rig.agent))
    )
      throw new Error('no lock was written');
    return chain.state.seq;
  }

  /** A second revision of the first epoch's key record, as rewrapping makes it. */
  async rewrap(): Promise<void> {
    const repo = await this.openRepo();
    const chain = await openChain(repo, this.id, never);
    if (chain === null) throw new Error('no chain');
    using ring = new KeyRing(repo, chain, [this.rig.provider]);
    const { key, context, machineKeys } = await ring.epoch(1, never);
    const wraps = [await this.rig.provider.wrap(key, context, never)];
    const record = encodeKeyRecord({ context, revision: 1, createdMs: 5, wraps }, key, machineKeys, this.rig.agent);
    await putOnce(this.target, keyRecordName(this.id, 1, 1), record, sha256(record), never);
  }

  async finish(): Promise<MachineSpecimen> {
    const chain = await openChain(await this.openRepo(), this.id, never);
    if (chain === null) throw new Error('no chain');
    return { id: this.id, hex: toHex(this.id), points: this.points, head: chain.head };
  }
}

/** `large`: with a summary in the chain, and a third machine, whose control data lies in an object of its own. */
export async function makeSpecimen(size: 'small' | 'large'): Promise<Specimen> {
  const rig = await ReplicaRig.create();
  const directory = join(rig.folder, 'bucket');
  const first = new Author(rig, 'first');
  const second = new Author(rig, 'second');
  const others = [second, ...(size === 'large' ? [new Author(rig, 'third')] : [])];
  const earlier: Objects[] = [];
  await first.seed();
  await second.seed();
  await others[1]?.seedWide();
  earlier.push(readObjects(directory));
  await addTrust(await first.openRepo(), rig.root, { retentionFloorDays: 7 });
  await first.sync('one');
  await first.rewrap();
  earlier.push(readObjects(directory));
  rig.now = () => Date.now() + 40 * dayMs;
  await first.sync('two');
  await second.sync('one');
  const locksUntil = size === 'large' ? 63 : 7;
  for (let seq = 0; seq < locksUntil; ) seq = await first.lock();
  earlier.push(readObjects(directory));
  const fork = await makeFork(rig, first);
  await first.sync('three');
  const machines = await Promise.all([first, ...others].map((author) => author.finish()));
  const stranger = await makeStranger(rig, first.id);
  return { rig, objects: readObjects(directory), machines, earlier, fork, stranger };
}

/** The next point, written to a copy of the bucket by a copy of the agent's state. */
async function makeFork(rig: ReplicaRig, author: Author): Promise<Objects> {
  const directory = join(rig.folder, 'fork-bucket');
  const stateFolder = join(rig.folder, 'fork-state');
  cpSync(join(rig.folder, 'bucket'), directory, { recursive: true });
  cpSync(author.stateFolder, stateFolder, { recursive: true });
  await using target = await openFilesystemTarget({ directory });
  author.change('forked');
  await author.publish({ target, stateFolder });
  return readObjects(directory);
}

async function makeStranger(rig: ReplicaRig, id: Uint8Array): Promise<Objects> {
  const directory = join(rig.folder, 'stranger-bucket');
  mkdirSync(directory);
  await using target = await openFilesystemTarget({ directory });
  const { root, agent, recovery } = rig;
  const fields = { root, recoveryPublicKey: recovery.publicKey, agents: [agent.publicKey], createdMs: 5 };
  await createRepository(target, fields, never);
  const author = new Author(rig, 'stranger', id, target);
  await author.seed();
  await addTrust(await author.openRepo(), root, { retentionFloorDays: 7 });
  await author.sync('one');
  return readObjects(directory);
}
