import { claimCheckpoint, convert, removeCheckpoint, removePoint } from './checkpoints.ts';
import { askJob, type HypervState } from './hyperv-calls.ts';
import { HypervBusy, HypervRefused, isNotFound } from './hyperv-errors.ts';
import { checkpointPrefix, finishJob, type HypervSite, readState, whenIdle, whyBusy } from './hyperv-site.ts';
import type { JournaledRun } from './run-journal.ts';
import { waitForMerge } from './wait-for-merge.ts';

/** What an earlier run began is ended: a point that was published gets its reference point, and of all others nothing stays. */

/**
 * `published`: the runs whose points the next changes are asked by; empty where everything is read.
 * Afterwards no checkpoint of ours is left. Returns the machine as it is then.
 */
export async function makeWay(
  site: HypervSite,
  published: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<HypervState> {
  let state = await whenIdle(site, signal);
  for (const run of site.journal.runs) {
    if (await outlived(site, run, signal)) state = await whenIdle(site, signal);
    if (run.stage === 'asked') await endAsked(site, run, state, signal);
    else if (run.stage === 'converting') await endConverting(site, run, state, signal);
    else if (run.stage === 'taken' && published.has(run.id)) await keepPoint(site, run, state, signal);
    else if (run.stage === 'taken') await giveUp(site, run, signal);
    state = await readState(site, signal);
  }
  await removeNameless(site, state, signal);
  // Before the merge is waited for: reference points that are left over keep Hyper-V from it.
  await dropUnneeded(site, published.size > 0 ? published : newestKept(site), signal);
  await waitForMerge(site, signal);
  state = await readState(site, signal);
  refuseBusy(site, state);
  return state;
}

/** A run whose point was published: its checkpoint becomes a reference point, or goes. Then nobody needs the earlier ones. */
export async function keepPoint(
  site: HypervSite,
  run: JournaledRun,
  state: HypervState,
  signal: AbortSignal,
): Promise<void> {
  const isThere = state.checkpoints.some(({ id }) => id === run.checkpoint);
  const made = isThere ? await convert(site, run, state, signal) : { point: null, state };
  if (made.point === null && made.state.checkpoints.some(({ id }) => id === run.checkpoint))
    await removeCheckpoint(site, run.checkpoint ?? '', signal);
  await settle(site, run, made.point, made.state);
  await dropUnneeded(site, new Set([run.id]), signal);
}

/** By what its changes will be asked: never by a guess. */
async function settle(
  { journal }: HypervSite,
  run: JournaledRun,
  point: string | null,
  state: HypervState,
): Promise<void> {
  const found = state.referencePoints.find(({ id }) => id === point);
  if (found === undefined) await journal.put({ ...run, stage: 'superseded', job: null, checkpoint: null });
  else
    await journal.put({
      ...{ ...run, stage: 'kept', job: null, checkpoint: null, referencePoint: found.id },
      tracking: Object.fromEntries(found.disks.map(({ key, tracking }) => [key, tracking])),
    });
}

/** A run whose point was not published, as far as is known: should it have been after all, the older one's changes are more. */
export async function giveUp(site: HypervSite, run: JournaledRun, signal: AbortSignal): Promise<void> {
  if (run.checkpoint !== null) await removeCheckpoint(site, run.checkpoint, signal);
  if (run.basis === null) await site.journal.drop(run.id);
  else await site.journal.put({ ...run, stage: 'superseded', job: null, checkpoint: null });
}

/** Only a run whose point was published has a reference point. */
function newestKept({ journal }: HypervSite): ReadonlySet<string> {
  const kept = journal.runs.filter(({ stage }) => stage === 'kept');
  const newest = kept.toSorted((one, other) => one.at.localeCompare(other.at)).at(-1);
  return new Set(newest === undefined ? [] : [newest.id]);
}

/** The run was given up while Hyper-V made its checkpoint. */
export async function endUnheard(site: HypervSite, signal: AbortSignal): Promise<void> {
  for (const run of site.journal.runs) {
    if (run.stage !== 'asked') continue;
    await outlived(site, run, signal);
    await endAsked(site, run, await whenIdle(site, signal), signal);
  }
}

/** It died while Hyper-V made the checkpoint: nothing was read from it. */
async function endAsked(site: HypervSite, run: JournaledRun, state: HypervState, signal: AbortSignal): Promise<void> {
  const made = await madeBy(site, run, signal);
  const ours = state.checkpoints.find(({ id }) => made.includes(id))?.id ?? claimCheckpoint(site, run, state);
  if (ours !== null) await removeCheckpoint(site, ours, signal);
  await site.journal.drop(run.id);
}

/** It died while Hyper-V made the reference point. */
async function endConverting(
  site: HypervSite,
  run: JournaledRun,
  state: HypervState,
  signal: AbortSignal,
): Promise<void> {
  if (state.checkpoints.some(({ id }) => id === run.checkpoint)) return await keepPoint(site, run, state, signal);
  const made = await madeBy(site, run, signal);
  const known = site.journal.runs.flatMap(({ referencePoint }) => referencePoint ?? []);
  const fresh = state.referencePoints
    .map(({ id }) => id)
    .filter((id) => !run.before.includes(id) && !known.includes(id));
  const said = fresh.find((id) => made.includes(id)) ?? null;
  // The only one that came since may be ours, which is enough to remove it, and not enough to ask by it.
  const [only, ...others] = fresh;
  if (said === null && only !== undefined && others.length === 0) await removePoint(site, only, signal);
  await settle(site, run, said, state);
}

/** What it asked for may still be under way: asking for the same again would have it done twice. */
async function outlived(site: HypervSite, { job }: JournaledRun, signal: AbortSignal): Promise<boolean> {
  if (job === null) return false;
  try {
    await finishJob(site, 'what an earlier run began', { job, made: null }, site.pace.checkpointMs, signal);
  } catch (error) {
    // How it ended is looked at below.
    if (!(error instanceof HypervRefused)) throw error;
  }
  return true;
}

async function madeBy({ client }: HypervSite, { job }: JournaledRun, signal: AbortSignal): Promise<readonly string[]> {
  if (job === null) return [];
  try {
    return (await askJob(client, job, signal)).made;
  } catch (error) {
    // Hyper-V forgets jobs some minutes after their end.
    if (isNotFound(error)) return [];
    throw error;
  }
}

/** Of a journal that was lost: the name alone says that it is ours. */
async function removeNameless(site: HypervSite, state: HypervState, signal: AbortSignal): Promise<void> {
  const prefix = checkpointPrefix(site.machine);
  for (const { id, name, recovery } of state.checkpoints)
    if (recovery && name.startsWith(prefix)) await removeCheckpoint(site, id, signal);
}

/** The run itself where it has a reference point, or the older one that stands in for it; null: none does. */
export function standsFor({ journal }: HypervSite, id: string): JournaledRun | null {
  const seen = new Set<string>();
  for (let run = journal.find(id); run !== null; run = journal.find(run.basis ?? '')) {
    if (run.stage === 'kept') return run;
    if (seen.has(run.id)) return null;
    seen.add(run.id);
  }
  return null;
}

/** More than one reference point keeps Hyper-V from merging. The newest that a published point needs stays, and no other of ours. */
async function dropUnneeded(site: HypervSite, published: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
  const { journal } = site;
  const needed = new Set<string>();
  for (const id of published) for (const each of [id, standsFor(site, id)?.id ?? id]) needed.add(each);
  for (const run of journal.runs) {
    if (needed.has(run.id) || !['kept', 'superseded'].includes(run.stage)) continue;
    if (run.referencePoint !== null) await removePoint(site, run.referencePoint, signal);
    await journal.drop(run.id);
  }
}

/** Ours are gone by now. */
function refuseBusy({ machine }: HypervSite, state: HypervState): void {
  const foreign = state.checkpoints.filter(({ recovery }) => recovery);
  if (foreign.length > 0)
    throw new HypervBusy(
      `machine ${machine.name} has a recovery checkpoint of another product (${foreign.map(({ name }) => name).join(', ')}): run again when that is done; if nobody is at it any more, remove it as docs/operations/hyperv.md says`,
    );
  const why = whyBusy(state);
  if (why !== null) throw new HypervBusy(`machine ${machine.name}: ${why}: run again when that has ended`);
}
