import { pause } from '../vsphere/pause.ts';
import { type HypervState, startConversion, startDestroyingCheckpoint, startDestroyingPoint } from './hyperv-calls.ts';
import { HypervRefused, HypervSnapshotStuck, isInTheWay, isNotFound } from './hyperv-errors.ts';
import { pollPauseMs } from './hyperv-machine.ts';
import { checkpointPrefix, finishJob, type HypervSite, readState } from './hyperv-site.ts';
import type { JournaledRun } from './run-journal.ts';

/** Removing what is ours: each step is written down before it is asked for, and may be asked for twice. */

/** Looking again is cheap; being refused again is not. */
const longer = 3;
/** Between attempts at what somebody holds. The next run tries again, too. */
const attemptsMax = 4;

export async function removeCheckpoint(site: HypervSite, id: string, signal: AbortSignal): Promise<void> {
  const what = 'removing its recovery checkpoint';
  await despiteOthers(site, what, signal, async () => {
    const started = await startDestroyingCheckpoint(site.client, id, signal);
    await finishJob(site, what, started, site.pace.checkpointMs, signal);
  });
  const { checkpoints } = await readState(site, signal);
  if (checkpoints.some((each) => each.id === id))
    throw new HypervSnapshotStuck(
      `machine ${site.machine.name}: recovery checkpoint ${id} is still there after Hyper-V removed it`,
    );
}

export async function removePoint(site: HypervSite, id: string, signal: AbortSignal): Promise<void> {
  const what = 'removing a reference point';
  await despiteOthers(site, what, signal, async () => {
    const started = await startDestroyingPoint(site.client, id, signal);
    await finishJob(site, what, started, site.pace.checkpointMs, signal);
  });
}

/** What Hyper-V made, and the machine as it was looked at for that. */
export interface Conversion {
  /** Null: it made none. */
  readonly point: string | null;
  readonly state: HypervState;
}

/** Throws only where it is not known what became of it. */
export async function convert(
  site: HypervSite,
  run: JournaledRun,
  state: HypervState,
  signal: AbortSignal,
): Promise<Conversion> {
  const { client, journal, pace } = site;
  const before = state.referencePoints.map(({ id }) => id);
  let converting = await journal.put({ ...run, stage: 'converting', job: null, before });
  let made: readonly string[] = [];
  try {
    const started = await startConversion(client, run.checkpoint ?? '', signal);
    converting = await journal.put({ ...converting, job: started.job });
    made = await finishJob(site, 'making a reference point', started, pace.checkpointMs, signal);
  } catch (error) {
    if (!(error instanceof HypervRefused)) throw error;
  }
  const now = await readState(site, signal);
  return { point: pointMade(converting, made, now), state: now };
}

/** What the job says it made, or what is there now and was not before, where that is one and the checkpoint is gone. */
function pointMade(run: JournaledRun, made: readonly string[], state: HypervState): string | null {
  const there = state.referencePoints.map(({ id }) => id).filter((id) => !run.before.includes(id));
  const said = there.filter((id) => made.includes(id));
  if (said.length > 0) return said[0] ?? null;
  const [only, ...others] = there;
  const isGone = state.checkpoints.every(({ id }) => id !== run.checkpoint);
  return isGone && others.length === 0 ? (only ?? null) : null;
}

/**
 * The checkpoint that was asked for by a run that did not hear of it. By its name; where the host gives it another one, by when it was
 * made, for as long as only one could be meant.
 */
export function claimCheckpoint(site: HypervSite, run: JournaledRun, state: HypervState): string | null {
  const { journal, machine, pace } = site;
  const name = `${checkpointPrefix(machine)}${run.id}`;
  const named = state.checkpoints.find((each) => each.recovery && each.name === name);
  if (named !== undefined || journal.keepsNames === true) return named?.id ?? null;
  const from = Date.parse(run.at) - clockTickMs;
  const candidates = state.checkpoints.filter(
    ({ id, recovery, createdAt }) =>
      recovery &&
      !run.before.includes(id) &&
      createdAt.getTime() >= from &&
      createdAt.getTime() <= from + pace.checkpointMs,
  );
  return candidates.length === 1 ? (candidates[0]?.id ?? null) : null;
}

/** Hyper-V's times may have whole seconds only. */
const clockTickMs = 2000;

/** Somebody else's work at the machine passes; what is gone already needs no removing. */
async function despiteOthers(
  site: HypervSite,
  what: string,
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await work();
      return;
    } catch (error) {
      if (isNotFound(error)) {
        // Not gone, where the machine is with another node: it is there.
        await readState(site, signal);
        return;
      }
      if (!(error instanceof HypervRefused)) throw error;
      if (!isInTheWay(error) || attempt === attemptsMax)
        throw new HypervSnapshotStuck(`machine ${site.machine.name}: ${what} does not succeed: ${error.message}`, {
          cause: error,
        });
      await pause(pollPauseMs(site.pace, attempt + longer), signal);
    }
  }
}
