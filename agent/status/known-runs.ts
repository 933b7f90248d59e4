import type { FailedStart } from '../state/failed-start.ts';
import { type BegunRun, type EndedRun, lastOf, noRuns } from '../state/run-record.ts';
import type { LocalKnowledge } from './local-knowledge.ts';

/** What this host remembers of its own runs of a machine. */
export interface KnownRuns {
  /** Null where none is under way, or where its beginning is not known. */
  readonly underWay: BegunRun | null;
  /** The last one that is over. */
  readonly last: EndedRun | null;
}

export function knownRuns(machine: string, local: LocalKnowledge | null, failedStart: FailedStart | null): KnownRuns {
  const record = local?.runRecord ?? noRuns;
  const running = local?.running === true;
  const last = running ? record.last : lastOf(record);
  const start = failedStart !== null && (failedStart.machines?.includes(machine) ?? true) ? failedStart : null;
  return { underWay: running ? record.begun : null, last: newerOf(last, start) };
}

function newerOf(a: EndedRun | null, b: EndedRun | null): EndedRun | null {
  if (a === null || b === null) return a ?? b;
  return b.startedMs > a.startedMs ? b : a;
}
