import { join } from 'node:path';
import { QuiesceUnavailable, SourceNotFound } from '../errors.ts';
import type { BlockSource, Machine, MachineSnapshot, SnapshotOptions } from '../hypervisor.ts';
import { readAttachment } from '../image/read-attachments.ts';
import { baseAllocation, NbdDisk } from '../nbd/nbd-disk.ts';
import { nbdBlockSource } from '../nbd/nbd-source.ts';
import type { NbdAddress } from '../nbd/nbd-uri.ts';
import { freezeGuest, GuestAgentFailed, thawGuest } from './guest-agent.ts';
import { MachineBusy, QmpLost, QmpRefused, ScratchFull, SnapshotLost } from './kvm-errors.ts';
import type { KvmMachine, QmpControl } from './kvm-machine.ts';
import { type Marks, marksOf } from './marks.ts';
import { listDisks, type QemuDisk } from './qemu-disks.ts';
import { QmpClient, type QmpEvent } from './qmp-client.ts';
import { cancelJobs, listJobs, removeExports, removeMarks } from './remove-marks.ts';
import { makeScratchImage, prepareScratch, removeScratch, type ScratchFolder, watchScratch } from './scratch-images.ts';
import { type DiskTracking, trackDisk } from './tracking-bitmaps.ts';

/**
 * A snapshot of all disks at one instant, by QEMU's own monitor. From then on QEMU copies what the guest is about to overwrite to a scratch
 * image, and an NBD server inside QEMU shows the disks as they were.
 */

const nbdConnectionsMax = 64;

interface TakenDisk {
  readonly disk: QemuDisk;
  readonly tracking: DiskTracking;
}

export async function measureByQmp(
  machine: KvmMachine,
  control: QmpControl,
  signal: AbortSignal,
): Promise<Machine['disks']> {
  await using qmp = await QmpClient.open(control.socket, signal);
  return chooseDisks(machine, await listDisks(qmp, signal)).chosen;
}

export async function snapshotByQmp(
  machine: KvmMachine,
  control: QmpControl,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  const marks = marksOf(machine.tag);
  const scratch: ScratchFolder = {
    folder: machine.scratchFolder,
    prefix: marks.prefix,
    freeBytesMin: machine.scratchFreeBytesMin,
  };
  const nbdSocket = join(scratch.folder, `${marks.prefix}nbd`);
  await using opening = new AsyncDisposableStack();
  const qmp = opening.use(await QmpClient.open(control.socket, signal));
  await removeMarks(qmp, marks, nbdSocket, signal);
  const { chosen, excluded } = chooseDisks(machine, await listDisks(qmp, signal));
  const added = marks.newReferencePoint();
  const disks = chosen.map((disk) => ({ disk, tracking: trackDisk(disk, marks, added) }));
  await prepareScratch(scratch);
  opening.defer(() => removeScratch(scratch));
  opening.defer(() => leave(qmp, marks, nbdSocket, disks));
  await addScratchImages(qmp, disks, marks, scratch, control.socket, signal);
  const health = new Health(
    qmp,
    marks,
    disks.map((_, i) => marks.job(i)),
  );
  opening.use(health);
  const { takenAt, frozenMs } = await takePoint(qmp, machine.name, control, disks, marks, options, signal);
  opening.use(watchScratch(scratch, (full) => health.giveUp(full)));
  const sources = await exportDisks(qmp, disks, marks, nbdSocket, health, opening, signal);
  const attachments = [];
  for (const path of machine.attachments)
    attachments.push((await readAttachment(machine.name, path, signal)).attachment);
  const held = opening.move();
  return {
    takenAt,
    disks: sources,
    excluded,
    attachments,
    frozenMs,
    async settleConsistency(settleSignal) {
      await health.check(settleSignal);
      return frozenMs === null ? 'crash-consistent' : 'application-consistent';
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function chooseDisks(machine: KvmMachine, found: readonly QemuDisk[]) {
  const labels = found.map(({ label }) => label);
  const refuse = (what: string): SourceNotFound => new SourceNotFound(`machine ${machine.name}: ${what}`);
  const twice = labels.find((label, index) => labels.indexOf(label) !== index);
  if (twice !== undefined) throw refuse(`two disks are called ${twice}: give their devices ids`);
  const unknown = machine.excludedDisks.find((label) => !labels.includes(label));
  if (unknown !== undefined)
    throw refuse(`exclude names ${unknown}, and its disks are: ${labels.join(', ') || 'none'}`);
  const reasonToExclude = ({ label, readOnly }: QemuDisk): string | null => {
    if (machine.excludedDisks.includes(label)) return 'the configuration excludes it';
    return readOnly ? 'the guest may only read it' : null;
  };
  const chosen = found.filter((disk) => reasonToExclude(disk) === null);
  if (chosen.length === 0) throw refuse('it has no disk to protect');
  const excluded = found.flatMap((disk) => {
    const reason = reasonToExclude(disk);
    return reason === null ? [] : [{ label: disk.label, reason }];
  });
  return { chosen, excluded };
}

async function addScratchImages(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  scratch: ScratchFolder,
  ownerOf: string,
  signal: AbortSignal,
): Promise<void> {
  for (const [i, { disk }] of disks.entries()) {
    const filename = await makeScratchImage(scratch, i, disk.capacityBytes, ownerOf, signal);
    const node = {
      driver: 'qcow2',
      'node-name': marks.node(i),
      file: { driver: 'file', filename },
      backing: disk.node,
    };
    await qmp.run('blockdev-add', node, signal);
  }
}

/** One transaction for all disks, inside a frozen guest where that can be had. The guest is thawed whatever happens. */
async function takePoint(
  qmp: QmpClient,
  name: string,
  { guestAgentSocket }: QmpControl,
  disks: readonly TakenDisk[],
  marks: Marks,
  { quiesce }: SnapshotOptions,
  signal: AbortSignal,
): Promise<{ readonly takenAt: Date; readonly frozenMs: number | null }> {
  const actions = disks.flatMap((taken, i) => actionsFor(taken, i, marks));
  const take = async (): Promise<Date> => {
    const takenAt = new Date();
    await qmp.run('transaction', { actions }, signal);
    return takenAt;
  };
  const unfrozen = async () => ({ takenAt: await take(), frozenMs: null });
  if (quiesce === 'off') return await unfrozen();
  const since = await freeze(guestAgentSocket, signal);
  if (typeof since !== 'number') {
    if (quiesce === 'prefer') return await unfrozen();
    throw new QuiesceUnavailable(`machine ${name} can't be frozen: ${since.message}`, { cause: since });
  }
  let takenAt: Date;
  try {
    takenAt = await take();
  } finally {
    if (guestAgentSocket !== null) await thawGuest(guestAgentSocket);
  }
  return { takenAt, frozenMs: performance.now() - since };
}

/** Since when the guest stands still, or why it does not. */
async function freeze(socket: string | null, signal: AbortSignal): Promise<number | GuestAgentFailed> {
  if (socket === null) return new GuestAgentFailed('guestAgent is not configured');
  try {
    return await freezeGuest(socket, signal);
  } catch (error) {
    if (error instanceof GuestAgentFailed) return error;
    throw error;
  }
}

function actionsFor({ disk, tracking }: TakenDisk, index: number, marks: Marks): readonly object[] {
  const { node, canPersist } = disk;
  const copies = [...tracking.frozen].flatMap(([name, copy]) => [
    { type: 'block-dirty-bitmap-add', data: { node, name: copy, granularity: granularityBytes, disabled: true } },
    { type: 'block-dirty-bitmap-merge', data: { node, target: copy, bitmaps: [name] } },
  ]);
  const record = { node, name: tracking.added, granularity: granularityBytes, persistent: canPersist };
  return [
    ...copies,
    { type: 'block-dirty-bitmap-add', data: record },
    {
      type: 'blockdev-backup',
      data: { 'job-id': marks.job(index), device: node, target: marks.node(index), sync: 'none' },
    },
  ];
}

const granularityBytes = 64 * 1024;

async function exportDisks(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  nbdSocket: string,
  health: Health,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<readonly BlockSource[]> {
  const addr = { type: 'unix', data: { path: nbdSocket } };
  await startServer(qmp, { addr, 'max-connections': nbdConnectionsMax }, signal);
  const sources: BlockSource[] = [];
  for (const [i, { disk, tracking }] of disks.entries()) {
    const name = marks.exportName(i);
    const bitmaps = [...tracking.frozen.values()];
    const options = { type: 'nbd', id: name, 'node-name': marks.node(i), name, writable: false, bitmaps };
    await qmp.run('block-export-add', options, signal);
    const address: NbdAddress = {
      transport: { kind: 'unix', path: nbdSocket },
      exportName: name,
      tls: false,
      serverName: 'localhost',
    };
    const contexts = bitmaps.map((bitmap) => `qemu:dirty-bitmap:${bitmap}`);
    const open = opening.use(await NbdDisk.open(address, { contexts: [baseAllocation] }, signal));
    // On a connection of their own: whoever asks for both has QEMU look up the allocation of the whole disk.
    const dirty = bitmaps.length === 0 ? open : opening.use(await NbdDisk.open(address, { contexts }, signal));
    sources.push(health.watching(trackedSource(disk, tracking, open, dirty)));
  }
  return sources;
}

function trackedSource({ label }: QemuDisk, tracking: DiskTracking, disk: NbdDisk, dirtyDisk: NbdDisk): BlockSource {
  const source = nbdBlockSource({
    label,
    disk,
    dirtyDisk,
    referencePoint: new TextEncoder().encode(tracking.added),
    bitmapSince: (since) => tracking.frozenSince(since),
  });
  return {
    ...source,
    changedExtents(since, signal) {
      if (since === null) tracking.listedAll();
      return source.changedExtents(since, signal);
    },
  };
}

async function startServer(qmp: QmpClient, options: Readonly<Record<string, unknown>>, signal: AbortSignal) {
  try {
    await qmp.run('nbd-server-start', options, signal);
  } catch (cause) {
    if (!(cause instanceof QmpRefused)) throw cause;
    throw new MachineBusy(`${cause.message}: QEMU has one NBD server, and somebody else uses it: end that first`, {
      cause,
    });
  }
}

/** Whatever the end of the run was. A QEMU that ended meanwhile took everything with it. */
async function leave(qmp: QmpClient, marks: Marks, nbdSocket: string, disks: readonly TakenDisk[]): Promise<void> {
  if (qmp.lost !== null) return;
  const never = new AbortController().signal;
  try {
    await removeMarks(qmp, marks, nbdSocket, never);
    for (const { disk, tracking } of disks)
      for (const name of tracking.useless()) await removeBitmap(qmp, disk.node, name, never);
  } catch (error) {
    if (!(error instanceof QmpLost)) throw error;
  }
}

async function removeBitmap(qmp: QmpClient, node: string, name: string, signal: AbortSignal): Promise<void> {
  const disk = (await listDisks(qmp, signal)).find((candidate) => candidate.node === node);
  if (disk?.bitmaps.some((bitmap) => bitmap.name === name))
    await qmp.run('block-dirty-bitmap-remove', { node, name }, signal);
}

/** Whether what is read is still the snapshot. Once it is not, nobody may go on reading. */
class Health implements Disposable {
  readonly #qmp: QmpClient;
  readonly #marks: Marks;
  readonly #jobs: readonly string[];
  readonly #listening: Disposable;
  #failure: Error | null = null;

  constructor(qmp: QmpClient, marks: Marks, jobs: readonly string[]) {
    this.#qmp = qmp;
    this.#marks = marks;
    this.#jobs = jobs;
    this.#listening = qmp.listen((event) => this.#hear(event));
  }

  /** Ends the snapshot, and lets a guest go on that QEMU stopped because a write found no room. */
  giveUp(failure: ScratchFull | SnapshotLost): void {
    if (this.#failure !== null) return;
    this.#failure = failure;
    this.#end().catch(() => undefined);
  }

  /** Throws what ended the snapshot. When it returns, everything that was read before is what the disks held. */
  async check(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#failure !== null) throw this.#failure;
    const jobs = await listJobs(this.#qmp, signal);
    if (this.#failure !== null) throw this.#failure;
    if (!this.#jobs.every((job) => jobs.includes(job)))
      throw new SnapshotLost('QEMU does not keep the snapshot any more');
  }

  /** The same disk, whose failures say what ended the snapshot. */
  watching(source: BlockSource): BlockSource {
    const explain = (error: unknown): unknown => this.#failure ?? error;
    return {
      ...source,
      async *changedExtents(since, signal) {
        try {
          yield* source.changedExtents(since, signal);
        } catch (error) {
          throw explain(error);
        }
      },
      async read(offset, into, signal) {
        await source.read(offset, into, signal).catch((error: unknown) => {
          throw explain(error);
        });
      },
    };
  }

  [Symbol.dispose](): void {
    this.#listening[Symbol.dispose]();
  }

  #hear({ event, data }: QmpEvent): void {
    if (event === 'BLOCK_IO_ERROR' && data.nospace === true && data.action === 'stop')
      this.giveUp(new ScratchFull('a write of the guest found no room: the snapshot was given up so that it goes on'));
    const ended = event === 'BLOCK_JOB_COMPLETED' || event === 'BLOCK_JOB_CANCELLED';
    if (ended && typeof data.device === 'string' && this.#marks.isOurs(data.device))
      this.giveUp(new SnapshotLost(`QEMU's job ${data.device} ended before the run did: was it cancelled by hand?`));
  }

  async #end(): Promise<void> {
    const never = new AbortController().signal;
    await removeExports(this.#qmp, this.#marks, never);
    await cancelJobs(this.#qmp, this.#marks, never);
    const status = await this.#qmp.run('query-status', {}, never);
    const stopped = typeof status === 'object' && status !== null && 'status' in status && status.status === 'io-error';
    if (stopped) await this.#qmp.run('cont', {}, never);
  }
}
