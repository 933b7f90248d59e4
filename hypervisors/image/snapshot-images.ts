import { QuiesceUnavailable, SourceChanged, SourceNotFound } from '../errors.ts';
import type { Consistency, MachineSnapshot, SnapshotOptions } from '../hypervisor.ts';
import type { ChangeWatch } from './change-watch.ts';
import type { ImageMachine } from './image-machine.ts';
import { openDisk } from './open-disk.ts';
import type { OpenDisk } from './open-raw-disk.ts';
import { type CapturedAttachment, readAttachment } from './read-attachments.ts';

interface Watched {
  readonly place: string;
  readonly watch: ChangeWatch;
}

/**
 * Nothing freezes an image: the snapshot is the promise to notice if it changed while it was read.
 * Disposing closes the files.
 */
export async function snapshotImages(
  machine: ImageMachine,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  refuseImpossible(machine, options);
  const takenAt = new Date();
  await using opening = new AsyncDisposableStack();
  const disks: OpenDisk[] = [];
  for (const disk of machine.disks) disks.push(opening.use(await openDisk(machine.name, disk, signal)));
  refuseSameDiskTwice(machine.name, disks);
  const attachments = await readAttachments(machine, signal);
  const watched = [...disks, ...attachments];
  if (options.whenChanging === 'refuse') refuseLive(machine.name, watched);
  const held = opening.move();
  return {
    takenAt,
    disks: disks.map((disk) => disk.source),
    excluded: [],
    attachments: attachments.map((captured) => captured.attachment),
    frozenMs: null,
    settleConsistency: (settleSignal) => settle(machine.name, watched, options, settleSignal),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function readAttachments(machine: ImageMachine, signal: AbortSignal): Promise<readonly CapturedAttachment[]> {
  const captured: CapturedAttachment[] = [];
  for (const path of machine.attachments ?? []) {
    const next = await readAttachment(machine.name, path, signal);
    const twin = captured.find((other) => other.attachment.name === next.attachment.name);
    if (twin !== undefined)
      throw new SourceNotFound(
        `attachments of machine ${machine.name}: ${twin.place} and ${path} have the same file name: rename or link one`,
      );
    captured.push(next);
  }
  return captured;
}

async function settle(
  machine: string,
  watched: readonly Watched[],
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<Consistency> {
  for (const { place, watch } of watched) {
    signal.throwIfAborted();
    const what = watch.liveBecause ?? (await watch.whatChanged());
    if (what === null) continue;
    if (options.whenChanging === 'mark-inconsistent') return 'inconsistent';
    throw changed(machine, place, `while it was read, ${what}`);
  }
  return 'crash-consistent';
}

function refuseImpossible(machine: ImageMachine, options: SnapshotOptions): void {
  if (options.quiesce === 'require')
    throw new QuiesceUnavailable(
      `machine ${machine.name} is an image, and no guest can be frozen through one: set quiesce to off or prefer`,
    );
  const labels = machine.disks.map((disk) => disk.label);
  const twice = labels.find((label, index) => labels.indexOf(label) !== index);
  if (twice !== undefined)
    throw new SourceNotFound(`machine ${machine.name} has two disks labelled ${twice}: give each its own label`);
}

function refuseSameDiskTwice(machine: string, disks: readonly OpenDisk[]): void {
  for (const [index, disk] of disks.entries()) {
    const twin = disks.slice(0, index).find((earlier) => earlier.identity === disk.identity);
    if (twin === undefined) continue;
    throw new SourceNotFound(
      `disks ${twin.source.label} and ${disk.source.label} of machine ${machine} are the same disk ` +
        `(${twin.place}, ${disk.place}): list each disk once`,
    );
  }
}

/** Better now than after hours of reading. */
function refuseLive(machine: string, watched: readonly Watched[]): void {
  for (const { place, watch } of watched)
    if (watch.liveBecause !== null) throw changed(machine, place, watch.liveBecause);
}

function changed(machine: string, place: string, what: string): SourceChanged {
  return new SourceChanged(
    `machine ${machine}: ${place}: ${what}. Shut the machine down or point failkit at a storage snapshot; ` +
      'or set whenChanging to mark-inconsistent',
  );
}
