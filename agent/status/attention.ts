import { sameBytes, toHex } from '../../replica/encoding.ts';
import { formatBytes, formatDuration, plural } from '../quantities.ts';
import { type ExitCode, exitCodes, remedyOf } from '../remedy.ts';
import type { BegunRun } from '../state/run-record.ts';
import { type MachineStatus, rpoNow } from './machine-status.ts';
import { vigilance } from './vigilance-status.ts';

/** What a person has to do something about. */
export interface Attention {
  readonly state: 'damaged' | 'fenced' | 'failing' | 'untrusted' | 'suspicious' | 'unverified' | 'late';
  readonly what: string;
  readonly fix: string;
  readonly exitCode: ExitCode;
}

/** What a status is measured by. */
export interface Expectation {
  /** Null: this host has no key of its own yet. */
  readonly ownKeyId: Uint8Array | null;
  readonly maxRpoMs: number | null;
  /** How old the last check of a block may be; 0: spot checks are off. */
  readonly spotCheckEveryMs: number;
}

export function attentionTo(status: MachineStatus, expected: Expectation): readonly Attention[] {
  const fenced = fencing(status, expected);
  // A run that found out about the other agent says nothing new.
  const failed = fenced === null ? failingRun(status) : null;
  const watched = vigilance(status, expected.spotCheckEveryMs);
  return [damage(status), fenced, failed, ...watched, lateness(status, expected)].filter((found) => found !== null);
}

function damage({ local, machine }: MachineStatus): Attention | null {
  const damaged = local?.damagedSegments ?? 0;
  if (damaged === 0) return null;
  const what = `verify found ${damaged} damaged ${damaged === 1 ? 'segment' : 'segments'}`;
  return { state: 'damaged', what, fix: `failkit sync ${machine} sends them again`, exitCode: exitCodes.damage };
}

function fencing({ replica }: MachineStatus, { ownKeyId }: Expectation): Attention | null {
  if (replica === null || ownKeyId === null || sameBytes(replica.ownerKeyId, ownKeyId)) return null;
  return {
    state: 'fenced',
    what: `agent ${toHex(replica.ownerKeyId)} took the machine over: this host is fenced`,
    fix: 'take it out of the configuration here, or run failkit sync --take-over if this host is to protect it',
    exitCode: exitCodes.replica,
  };
}

/** However young the newest point is: the next one may never come. */
function failingRun({ machine, runs, nowMs }: MachineStatus): Attention | null {
  if (runs.last === null) return null;
  const { end, verb } = runs.last;
  const which = `the last run, ${whenOf(runs.last, nowMs)},`;
  if (end.how === 'killed')
    return {
      state: 'failing',
      what: `${which} was killed before it ended`,
      fix: `failkit ${verb} ${machine} goes on from what it had stored; see why it was killed: out of memory, power, a time limit`,
      exitCode: exitCodes.replica,
    };
  if (end.how !== 'failed') return null;
  const remedy = remedyOf(end.code);
  return {
    state: 'failing',
    what: `${which} failed with ${end.code}: ${end.message}`,
    fix: remedy?.hint ?? `failkit ${verb} ${machine} again; if it stays so, report it`,
    exitCode: remedy?.exitCode ?? exitCodes.unexpected,
  };
}

function whenOf({ verb, startedMs }: BegunRun, nowMs: number): string {
  return `a ${verb} ${formatDuration(Math.max(0, nowMs - startedMs))} ago`;
}

/** How the last run went, in one line, for those who ask about few machines. */
export function lastRunLine({ runs, nowMs }: MachineStatus): string | null {
  if (runs.last === null) return null;
  const { end, endedMs, startedMs } = runs.last;
  const when = `last run: ${whenOf(runs.last, nowMs)}`;
  if (end.how === 'interrupted') return `${when}, was stopped by Ctrl-C or the service manager`;
  if (end.how !== 'published') return null;
  const took = endedMs === null ? '' : ` in ${formatDuration(endedMs - startedMs)}`;
  return `${when}, published point ${end.point}${took}${end.alarms.length === 0 ? '' : ', with an alarm'}`;
}

function lateness(status: MachineStatus, { maxRpoMs }: Expectation): Attention | null {
  if (maxRpoMs === null) return null;
  const rpo = rpoNow(status);
  if (rpo !== null && rpo.ms <= maxRpoMs) return null;
  const is = rpo === null ? 'there is no recovery point' : `RPO is ${formatDuration(rpo.ms)}`;
  return {
    state: 'late',
    what: `${is}, and ${formatDuration(maxRpoMs)} is the most it may be`,
    fix: rpo === null ? `failkit seed ${status.machine}` : `failkit sync ${status.machine}, and see why it did not run`,
    exitCode: exitCodes.replica,
  };
}

/** What is worth knowing, and nobody has to act on. */
export function remarksOn({ replica, local, machineId, runs, nowMs }: MachineStatus): readonly string[] {
  const newest = replica?.newest ?? null;
  const manifest = newest?.manifest ?? null;
  const remarks: (string | null)[] = [
    machineId === null && local?.running !== true
      ? 'never seeded from this host; whether another host protects it, failkit points shows'
      : null,
    newest !== null && manifest === null
      ? 'another host published this point: its snapshot time is sealed, RPO counts from publishing'
      : null,
    manifest !== null && manifest.excluded.length > 0
      ? `partial: without ${manifest.excluded.map(({ label }) => label).join(', ')}`
      : null,
    manifest?.consistency === 'inconsistent' ? 'inconsistent: the disks changed while they were read' : null,
    local?.running === true ? underWay(runs.underWay, nowMs) : null,
    local?.unfinished && local.running === false ? unfinished(local.unfinished) : null,
  ];
  return remarks.filter((remark) => remark !== null);
}

function underWay(begun: BegunRun | null, nowMs: number): string {
  return begun === null
    ? 'a run is under way'
    : `a ${begun.verb} is under way for ${formatDuration(Math.max(0, nowMs - begun.startedMs))}`;
}

function unfinished({ segments, bytes }: { readonly segments: number; readonly bytes: number }): string {
  return `a run that published nothing had stored ${plural(segments, 'segment')}, ${formatBytes(bytes)}: the next one adopts them`;
}
