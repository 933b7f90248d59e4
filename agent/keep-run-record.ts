import { describeFailure } from './failure.ts';
import { codeOf } from './remedy.ts';
import { StateDiskFull, StateUnusable } from './state/errors.ts';
import { keepFailedStart } from './state/failed-start.ts';
import type { MachineState } from './state/machine-state.ts';
import { failedEnd, type RunEnd, withBegun } from './state/run-record.ts';

/** Runs leave behind how they began and ended, for `failkit status`. */

interface PublishedRun {
  readonly point: number;
  readonly alarms: readonly { readonly what: string }[];
}

/** Of one machine. What can't be kept at the end is no reason to fail: the point is published by then. */
export async function keepingRunRecord<Published extends PublishedRun>(
  state: MachineState,
  verb: string,
  signal: AbortSignal,
  run: () => Promise<Published>,
): Promise<Published> {
  const before = state.runRecord;
  const begun = { verb, startedMs: Date.now() };
  state.keepRunRecord(withBegun(before, begun));
  // Or whoever looks while the run is under way would find an empty file.
  state.showToOthers();
  const keepEnd = (end: RunEnd): void =>
    whereItCan(() => state.keepRunRecord({ begun: null, last: { ...begun, endedMs: Date.now(), end } }));
  let published: Published;
  try {
    published = await run();
  } catch (error) {
    // The wrong command is no run that failed.
    if (codeOf(error) === 'WRONG_VERB') whereItCan(() => state.keepRunRecord(before));
    else keepEnd(endOf(error, signal));
    throw error;
  }
  const { point, alarms } = published;
  keepEnd({ how: 'published', point, alarms: alarms.map(({ what }) => what) });
  return published;
}

/** Of all `machines` (null: all that there are), where the run fails before it comes to any. */
export async function keepingFailedStart<Result>(
  folder: string,
  verb: string,
  machines: readonly string[] | null,
  signal: AbortSignal,
  start: () => Promise<Result>,
): Promise<Result> {
  const startedMs = Date.now();
  try {
    return await start();
  } catch (error) {
    const end = endOf(error, signal);
    whereItCan(() => keepFailedStart(folder, { verb, startedMs, endedMs: Date.now(), end, machines }));
    throw error;
  }
}

function endOf(error: unknown, signal: AbortSignal): RunEnd {
  const { code, message } = describeFailure(error, signal, { stack: false }).document.error;
  return code === 'INTERRUPTED' ? { how: 'interrupted' } : failedEnd(code, message);
}

function whereItCan(keep: () => void): void {
  try {
    keep();
  } catch (error) {
    // The run's own outcome is the news, and where the state is out of order the next run says so.
    if (!(error instanceof StateDiskFull || error instanceof StateUnusable)) throw error;
  }
}
