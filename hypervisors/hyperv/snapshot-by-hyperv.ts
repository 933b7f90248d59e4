import type { MachineSnapshot, SnapshotOptions } from '../hypervisor.ts';
import { capacityOf } from '../vhdx/chain-reader.ts';
import { type ImageChain, openChain } from '../vhdx/image-chain.ts';
import { captureConfiguration } from './capture-configuration.ts';
import { type FileMarks, marksOf, openingHeld } from './frozen-files.ts';
import { checkpointDisks, checkpointDocuments, type HypervDisk, type HypervState } from './hyperv-calls.ts';
import { type FrozenDisk, hypervBlockSource } from './hyperv-disk-source.ts';
import { HypervMachineUnusable, HypervSnapshotGone } from './hyperv-errors.ts';
import { chooseDisks, type HypervSite, readState, refuseWithoutDisks, tracksChanges } from './hyperv-site.ts';
import { endUnheard, giveUp, keepPoint, makeWay, standsFor } from './make-way.ts';
import { decodeReferencePoint, type HypervReferencePoint } from './reference-point.ts';
import { requireRoom } from './require-room.ts';
import { type TakenCheckpoint, takeCheckpoint } from './take-checkpoint.ts';
import { waitForMerge } from './wait-for-merge.ts';

/**
 * One cycle: make way, take the checkpoint, read the files below it; once the point is published, make the checkpoint a reference point,
 * remove the earlier one, and wait until Hyper-V has merged.
 */

/** After the last read; merging takes as long as it takes, and Ctrl-C twice ends the wait. */
const cleanUpTimeoutMs = 12 * 3600 * 1000;

export async function snapshotByHyperv(
  site: HypervSite,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  const { machine } = site;
  const published = publishedRuns(options);
  const before = await makeWay(site, published, signal);
  refuseWithoutDisks(machine, chooseDisks(machine, before.disks).chosen);
  await requireRoom(site, before, signal);
  const [basis = null] = [...published].flatMap((run) => standsFor(site, run)?.id ?? []);
  const ending: Ending = { run: null, isPublished: false };
  await using opening = new AsyncDisposableStack();
  // Whatever becomes of this run, no checkpoint of ours stays: also one that was asked for and never heard of.
  opening.defer(() => end(site, ending));
  const taken = await takeCheckpoint(site, before, options.quiesce, basis, signal);
  ending.run = taken.run;
  const frozen = await openFrozen(site, taken, opening, signal);
  ending.run = await site.journal.put({ ...taken.run, disks: frozen.disks.map(journaled) });
  const reached = `${taken.consistency}-consistent` as const;
  const documents = await checkpointDocuments(site.client, taken.checkpoint, signal);
  const attachments = captureConfiguration(frozen.state, documents, { reached, fellBack: taken.fellBack });
  const held = opening.move();
  return {
    takenAt: taken.takenAt,
    disks: frozen.disks.map(hypervBlockSource),
    excluded: frozen.excluded,
    attachments,
    frozenMs: null,
    notePublished: () => {
      ending.isPublished = true;
    },
    async settleConsistency(settleSignal) {
      await requireUntouched(site, taken.checkpoint, frozen, settleSignal);
      return reached;
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

interface Ending {
  /** Null: its checkpoint was not heard of. */
  run: TakenCheckpoint['run'] | null;
  isPublished: boolean;
}

async function end(site: HypervSite, { run, isPublished }: Ending): Promise<void> {
  const limit = AbortSignal.timeout(cleanUpTimeoutMs);
  if (run === null) await endUnheard(site, limit);
  else if (isPublished) await keepPoint(site, run, await readState(site, limit), limit);
  else await giveUp(site, run, limit);
  await waitForMerge(site, limit);
}

/** The runs that the reference points come from, by which the disks will be asked. */
function publishedRuns({ since }: SnapshotOptions): ReadonlySet<string> {
  const points = [...(since?.values() ?? [])].flatMap((bytes) => (bytes === null ? [] : [decodeReferencePoint(bytes)]));
  return new Set(points.flatMap((point) => point?.run ?? []));
}

interface Frozen {
  readonly state: HypervState;
  readonly disks: readonly FrozenDisk[];
  readonly marks: FileMarks;
  readonly excluded: MachineSnapshot['excluded'];
}

/** By the checkpoint's own disks: those of the machine may have changed since. */
async function openFrozen(
  site: HypervSite,
  { checkpoint, run }: TakenCheckpoint,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<Frozen> {
  const state = await readState(site, signal);
  const { chosen, excluded } = chooseDisks(site.machine, await checkpointDisks(site.client, checkpoint, signal));
  refuseWithoutDisks(site.machine, chosen);
  const disks: FrozenDisk[] = [];
  const marks = new Map<string, string>();
  for (const disk of chosen) {
    const chain = opening.use(await openFiles(site, disk, signal));
    for (const [path, mark] of await marksOf(chain, signal)) marks.set(path, mark);
    disks.push({ site, state, disk, chain, point: pointOf(site, state, run.id, disk, chain) });
  }
  return { state, disks, marks, excluded };
}

async function openFiles(site: HypervSite, disk: HypervDisk, signal: AbortSignal): Promise<ImageChain> {
  const { machine } = site;
  const options = { openFile: openingHeld(site), onWindows: isWindowsPath(disk.path) };
  const chain = await openChain(disk.path, options, signal);
  if (chain !== null) return chain;
  throw new HypervMachineUnusable(
    `machine ${machine.name}: disk ${disk.label}: ${disk.path} is not there for this agent: see who may read the folder`,
  );
}

/** As the host writes it, wherever this agent runs. */
function isWindowsPath(path: string): boolean {
  return /^([A-Za-z]:|\\)\\/.test(path);
}

/** Null: what is written to it later can't be told. */
function pointOf(
  { machine }: HypervSite,
  state: HypervState,
  run: string,
  { key }: HypervDisk,
  chain: ImageChain,
): HypervReferencePoint | null {
  const [top] = chain.layers;
  if (machine.tracking === 'leave' || !tracksChanges(state) || top.diskIdentity === null) return null;
  const { diskIdentity: identity, sectorBytes } = top;
  return { run, vm: machine.vm, key, identity, sectorBytes, capacityBytes: capacityOf(chain) };
}

function journaled({ disk, chain }: FrozenDisk) {
  return { key: disk.key, identity: chain.layers[0].diskIdentity, capacityBytes: capacityOf(chain) };
}

/** A checkpoint that somebody removed meanwhile was merged into what we read from. */
async function requireUntouched(
  site: HypervSite,
  checkpoint: string,
  { disks, marks }: Frozen,
  signal: AbortSignal,
): Promise<void> {
  const { machine } = site;
  const { checkpoints } = await readState(site, signal);
  if (checkpoints.every(({ id }) => id !== checkpoint))
    throw new HypervSnapshotGone(`machine ${machine.name}: somebody removed our checkpoint while it was read`);
  for (const { disk, chain } of disks)
    for (const [path, mark] of await marksOf(chain, signal))
      if (marks.get(path) !== mark)
        throw new HypervSnapshotGone(
          `machine ${machine.name}: disk ${disk.label}: ${path} was written to while it was read`,
        );
}
