import { randomBytes } from 'node:crypto';
import { QuiesceUnavailable } from '../errors.ts';
import type { SnapshotOptions } from '../hypervisor.ts';
import { claimCheckpoint, removeCheckpoint } from './checkpoints.ts';
import { type Consistent, type HypervState, startCheckpoint } from './hyperv-calls.ts';
import { HypervAnswerInvalid, HypervBusy, HypervRefused, isInTheWay } from './hyperv-errors.ts';
import { checkpointPrefix, finishJob, type HypervSite, isRunning, readState } from './hyperv-site.ts';
import type { JournaledRun } from './run-journal.ts';

/** The instant of a recovery point: one recovery checkpoint of all disks, quiesced where that can be had. */
export interface TakenCheckpoint {
  readonly takenAt: Date;
  readonly run: JournaledRun;
  readonly checkpoint: string;
  readonly consistency: Consistent;
  /** Why it is only crash-consistent, though more was asked for; null: it was not, or it is. */
  readonly fellBack: string | null;
}

export async function takeCheckpoint(
  site: HypervSite,
  state: HypervState,
  quiesce: SnapshotOptions['quiesce'],
  basis: string | null,
  signal: AbortSignal,
): Promise<TakenCheckpoint> {
  // A machine that is off holds still by itself, and has nobody who could flush.
  const asks = quiesce !== 'off' && isRunning(state);
  if (quiesce === 'require' && !asks) throw unquiesced(site, 'it does not run');
  if (!asks) return { ...(await create(site, state, 'crash', basis, signal)), fellBack: null };
  try {
    return { ...(await create(site, state, 'application', basis, signal)), fellBack: null };
  } catch (error) {
    if (!(error instanceof HypervRefused)) throw error;
    if (quiesce === 'require') throw unquiesced(site, error.message);
    const now = await readState(site, signal);
    return { ...(await create(site, now, 'crash', basis, signal)), fellBack: error.message };
  }
}

async function create(
  site: HypervSite,
  state: HypervState,
  consistency: Consistent,
  basis: string | null,
  signal: AbortSignal,
): Promise<Omit<TakenCheckpoint, 'fellBack'>> {
  const { client, journal, machine, pace } = site;
  const id = randomBytes(4).toString('hex');
  let run = await journal.put(askedRun(id, state, basis));
  try {
    const name = `${checkpointPrefix(machine)}${id}`;
    // Before Hyper-V begins: a point is never older than it says.
    const takenAt = new Date();
    const started = await startCheckpoint(client, { vm: machine.vm, name, consistency }, signal);
    run = await journal.put({ ...run, job: started.job });
    const made = await finishJob(site, `its ${consistency}-consistent checkpoint`, started, pace.checkpointMs, signal);
    const now = await readState(site, signal);
    const found = now.checkpoints.find((each) => made.includes(each.id) && each.recovery);
    const checkpoint = found?.id ?? claimCheckpoint(site, run, now);
    if (checkpoint === null)
      throw new HypervAnswerInvalid(`machine ${machine.name}: the checkpoint that ${client.where} made is not there`);
    if (found !== undefined) await journal.learnNames(found.name === name);
    run = await journal.put({ ...run, stage: 'taken', job: null, checkpoint });
    return { takenAt, run, checkpoint, consistency };
  } catch (error) {
    if (!(error instanceof HypervRefused)) throw error;
    await leaveNothing(site, run, signal);
    if (isInTheWay(error))
      throw new HypervBusy(`machine ${machine.name}: somebody else is at it: ${error.message}`, { cause: error });
    throw error;
  }
}

/** A checkpoint that failed may be there all the same. */
async function leaveNothing(site: HypervSite, run: JournaledRun, signal: AbortSignal): Promise<void> {
  const left = claimCheckpoint(site, run, await readState(site, signal));
  if (left !== null) await removeCheckpoint(site, left, signal);
  await site.journal.drop(run.id);
}

function askedRun(id: string, state: HypervState, basis: string | null): JournaledRun {
  return {
    ...{ id, stage: 'asked', at: state.now.toISOString(), job: null, basis },
    before: state.checkpoints.map((each) => each.id),
    ...{ checkpoint: null, referencePoint: null, tracking: {}, disks: [] },
  };
}

function unquiesced({ machine }: HypervSite, why: string): QuiesceUnavailable {
  return new QuiesceUnavailable(
    `machine ${machine.name} can't be quiesced: ${why}. Look at its guest services, or set quiesce to prefer`,
  );
}
