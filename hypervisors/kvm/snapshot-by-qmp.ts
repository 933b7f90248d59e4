import { join } from 'node:path';
import { SourceNotFound } from '../errors.ts';
import type { Attachment, BlockSource, Machine, MachineSnapshot, SnapshotOptions } from '../hypervisor.ts';
import { readAttachment } from '../image/read-attachments.ts';
import { captureMachine } from './capture-machine.ts';
import { disksWithThreads, sharedDisks } from './device-properties.ts';
import { QmpLost } from './kvm-errors.ts';
import type { KvmMachine, QmpControl } from './kvm-machine.ts';
import { type Marks, marksOf } from './marks.ts';
import { exportDisks } from './pull-disks.ts';
import { connectToServer, lockImage, lockImageBytes, servePushed } from './push-disks.ts';
import { PushedDisk } from './pushed-disk.ts';
import { listDisks, type QemuDisk } from './qemu-disks.ts';
import { QmpClient } from './qmp-client.ts';
import { removeMarks } from './remove-marks.ts';
import { makeScratchImage, prepareScratch, removeScratch, type ScratchFolder, watchScratch } from './scratch-images.ts';
import { SnapshotGuard } from './snapshot-guard.ts';
import { SnapshotHealth } from './snapshot-health.ts';
import { takePoint } from './take-point.ts';
import type { TakenDisk } from './taken-disk.ts';
import { trackDisk } from './tracking-bitmaps.ts';
import { thawLeftFrozen } from './while-frozen.ts';

/**
 * A snapshot of all disks at one instant, by QEMU's own monitor. From then on QEMU copies what the guest is about to overwrite to a scratch
 * image, and shows the disks as they were: over its own NBD server, or by pushing them to ours.
 */

export async function measureByQmp(
  machine: KvmMachine,
  control: QmpControl,
  signal: AbortSignal,
): Promise<Machine['disks']> {
  await using qmp = await QmpClient.open(control.socket, signal);
  return (await chooseDisks(qmp, machine, signal)).chosen;
}

export async function snapshotByQmp(
  machine: KvmMachine,
  control: QmpControl,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  const marks = marksOf(machine.tag);
  const scratch = { folder: machine.scratchFolder, prefix: marks.prefix, freeBytesMin: machine.scratchFreeBytesMin };
  const nbdSocket = join(scratch.folder, `${marks.prefix}nbd`);
  await using opening = new AsyncDisposableStack();
  const qmp = opening.use(await QmpClient.open(control.socket, signal));
  await thawLeftFrozen(qmp, marks, control.guestAgentSocket, signal);
  await removeMarks(qmp, marks, nbdSocket, signal);
  const { chosen, excluded } = await chooseDisks(qmp, machine, signal);
  const disks = await planDisks(qmp, chosen, marks, signal);
  const [pulled, pushed] = [disks.filter(({ mode }) => mode === 'pull'), disks.filter(({ mode }) => mode === 'push')];
  await prepareScratch(scratch);
  const { socket: monitor, guestAgentSocket: guestAgent } = control;
  const guard = opening.use(
    new SnapshotGuard({ kind: 'qmp', monitor, guestAgent, scratch, nbdSocket, tag: machine.tag }),
  );
  opening.defer(() => removeScratch(scratch));
  const pushes = new Map(pushed.map((taken) => [taken.disk.label, new PushedDisk(qmp, marks, taken)]));
  const server =
    pushed.length === 0
      ? null
      : opening.use(await servePushed([...pushes.values()], scratch.folder, marks, control.socket));
  opening.defer(() => leave(qmp, marks, nbdSocket, disks, guard));
  await addScratchImages(qmp, disks, marks, scratch, control.socket, signal);
  if (pushed.length > 0) await makeScratchImage(scratch, lockImage, lockImageBytes, control.socket, signal);
  if (server !== null) await connectToServer(qmp, pushed, server.path, marks, signal);
  const jobs = pulled.map(({ index }) => marks.job(index));
  const health = opening.use(new SnapshotHealth(qmp, marks, jobs, [...pushes.values()]));
  const { takenAt, quiesced, frozenMs } = await takePoint(
    qmp,
    machine.name,
    control,
    disks,
    { marks, scratch },
    options,
    signal,
  );
  opening.use(watchScratch(scratch, (full) => health.giveUp(full)));
  const pulls = await exportDisks(qmp, pulled, marks, nbdSocket, opening, signal);
  const sourceOf = ({ disk }: TakenDisk): BlockSource | undefined =>
    pulls.get(disk.label) ?? pushes.get(disk.label)?.source;
  const sources = disks.map(sourceOf).filter((source) => source !== undefined);
  const attachments = await captureAttachments(qmp, machine, chosen, signal);
  const held = opening.move();
  return {
    takenAt,
    disks: sources.map((source) => health.watching(source)),
    excluded,
    attachments,
    frozenMs,
    async settleConsistency(settleSignal) {
      await health.check(settleSignal);
      return quiesced ? 'application-consistent' : 'crash-consistent';
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function chooseDisks(qmp: QmpClient, machine: KvmMachine, signal: AbortSignal) {
  const found = await listDisks(qmp, signal);
  const shared = await sharedDisks(qmp, found, signal);
  const labels = found.map(({ label }) => label);
  const refuse = (what: string): SourceNotFound => new SourceNotFound(`machine ${machine.name}: ${what}`);
  const twice = labels.find((label, index) => labels.indexOf(label) !== index);
  if (twice !== undefined) throw refuse(`two disks are called ${twice}: give their devices ids`);
  const unknown = machine.excludedDisks.find((label) => !labels.includes(label));
  if (unknown !== undefined)
    throw refuse(`exclude names ${unknown}, and its disks are: ${labels.join(', ') || 'none'}`);
  const reasonToExclude = ({ label, readOnly }: QemuDisk): string | null => {
    if (machine.excludedDisks.includes(label)) return 'the configuration excludes it';
    if (readOnly) return 'the guest may only read it';
    return shared.has(label) ? 'other machines may write it, too (share-rw)' : null;
  };
  const chosen = found.filter((disk) => reasonToExclude(disk) === null);
  if (chosen.length === 0) throw refuse('it has no disk to protect');
  const excluded = found.flatMap((disk) => {
    const reason = reasonToExclude(disk);
    return reason === null ? [] : [{ label: disk.label, reason }];
  });
  return { chosen, excluded };
}

async function planDisks(
  qmp: QmpClient,
  chosen: readonly QemuDisk[],
  marks: Marks,
  signal: AbortSignal,
): Promise<readonly TakenDisk[]> {
  const threads = await disksWithThreads(qmp, chosen, signal);
  return chosen.map((disk, index) => ({
    index,
    disk,
    // Each disk its own: images that were exchanged between two disks are then not taken for each other.
    tracking: trackDisk(disk, marks, marks.newReferencePoint()),
    mode: threads.has(disk.label) ? 'push' : 'pull',
  }));
}

async function addScratchImages(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  scratch: ScratchFolder,
  ownerOf: string,
  signal: AbortSignal,
): Promise<void> {
  for (const { index, disk, mode } of disks) {
    const filename = await makeScratchImage(scratch, String(index), disk.capacityBytes, ownerOf, signal);
    const node = { driver: 'qcow2', 'node-name': marks.node(index), file: { driver: 'file', filename } };
    await qmp.run('blockdev-add', mode === 'pull' ? { ...node, backing: disk.node } : node, signal);
  }
}

async function captureAttachments(
  qmp: QmpClient,
  { name, attachments }: KvmMachine,
  disks: readonly QemuDisk[],
  signal: AbortSignal,
): Promise<readonly Attachment[]> {
  const captured = [...(await captureMachine(qmp, disks, signal))];
  for (const path of attachments) {
    const { attachment } = await readAttachment(name, path, signal);
    if (captured.some((other) => other.name === attachment.name))
      throw new SourceNotFound(
        `attachment of machine ${name}: ${path} has a name that this agent uses itself: rename or link it`,
      );
    captured.push(attachment);
  }
  return captured;
}

/** Whatever the end of the run was. A QEMU that ended meanwhile took everything with it. */
async function leave(
  qmp: QmpClient,
  marks: Marks,
  nbdSocket: string,
  disks: readonly TakenDisk[],
  guard: SnapshotGuard,
): Promise<void> {
  if (qmp.lost !== null) return;
  const never = new AbortController().signal;
  try {
    await removeMarks(qmp, marks, nbdSocket, never);
    guard.done();
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
