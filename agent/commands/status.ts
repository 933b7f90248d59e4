import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { inParallel } from '../../replica/in-parallel.ts';
import { describeFailure, type Failure } from '../failure.ts';
import { highestExitCode } from '../highest-exit-code.ts';
import type { Colours, Output } from '../output.ts';
import { formatBytes, formatDuration, minuteText, parseDuration } from '../quantities.ts';
import { exitCodes, remedyOf } from '../remedy.ts';
import { type KeylessSession, openKeylessSession } from '../session.ts';
import { type FailedStart, readFailedStart } from '../state/failed-start.ts';
import type { EndedRun } from '../state/run-record.ts';
import { type Attention, attentionTo, type Expectation, lastRunLine, remarksOn } from '../status/attention.ts';
import { ownKeyId } from '../status/local-knowledge.ts';
import { type MachineStatus, machineStatus, rpoNow } from '../status/machine-status.ts';
import { type DiskTracking, trackingLine, trackingOf, verifiedTo } from '../status/vigilance-status.ts';
import { formatTable } from '../table.ts';
import { wrapText } from '../wrap-text.ts';
import { chooseMachines } from './choose-machines.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit status`: how old is what could be restored, and does anything need a person? Asks no key service. */

const quietMs = 2_000;
const machinesInFlightMax = 8;
/** Of more machines, only what is wrong is told. */
const describedMax = 8;

interface StatusOptions {
  readonly maxRpo?: number;
}

/** What a machine came to; null `status` where it could not be told, because of `failure`. */
interface Examined {
  readonly machine: string;
  readonly status: MachineStatus | null;
  readonly failure: Failure | null;
  readonly attention: readonly Attention[];
  readonly spotCheckEveryMs: number;
}

type ExpectationOfAll = Omit<Expectation, 'spotCheckEveryMs'>;

export function register(program: Command, run: RunCommand): void {
  program
    .command('status')
    .description('show the newest recovery point of each machine, its age (RPO), and what needs attention')
    .argument('[machines...]', 'names from the configuration (default: all)')
    .option(
      '--max-rpo <duration>',
      'exit with 6 when a machine has nothing newer: 90s, 15min, 4h, 1d12h',
      durationOption,
    )
    .action((names: string[], options: StatusOptions, command: Command) =>
      run(command, (context) => showStatus(names, options, context)),
    );
}

function durationOption(text: string): number {
  const durationMs = parseDuration(text);
  if (durationMs === null) throw new InvalidArgumentError('give it as 90s, 15min, 4h or 1d12h.');
  return durationMs;
}

async function showStatus(
  names: readonly string[],
  { maxRpo = null }: { readonly maxRpo?: number | null },
  context: CommandContext,
): Promise<CommandAnswer> {
  const machines = chooseMachines(context.config(), names);
  await using session = await openKeylessSession(context);
  const expected: ExpectationOfAll = { ownKeyId: await ownKeyId(session.config), maxRpoMs: maxRpo };
  const failedStart = readFailedStart(session.config.state);
  const startedMs = performance.now();
  let done = 0;
  const examined = await inParallel(machines, machinesInFlightMax, context.signal, async (machine, signal) => {
    const { name, spotCheck } = machine;
    const own = { ...expected, failedStart, spotCheckEveryMs: spotCheck.everyMs };
    const found = await examine(name, session, own, signal);
    done += 1;
    // A monitor asks every minute, and wants to hear nothing of this.
    if (performance.now() - startedMs > quietMs)
      context.output.progress({ title: `${done} of ${machines.length} machines`, share: done / machines.length });
    return found;
  });
  return {
    document: {
      repository: session.store.target.description,
      machines: examined.map((each) => documentOf(each, expected)),
    },
    lines: linesOf(examined, expected, context.output),
    exitCode: highestExitCode(
      examined
        .flatMap(({ failure, attention }) => [failure, ...attention])
        .map((found) => found?.exitCode ?? exitCodes.ok),
    ),
  };
}

/** One machine's damage does not hide the others. */
async function examine(
  machine: string,
  session: KeylessSession,
  expected: Expectation & { readonly failedStart: FailedStart | null },
  signal: AbortSignal,
): Promise<Examined> {
  const { spotCheckEveryMs } = expected;
  try {
    const status = await machineStatus(session, machine, expected.failedStart, signal);
    return { machine, status, failure: null, attention: attentionTo(status, expected), spotCheckEveryMs };
  } catch (error) {
    signal.throwIfAborted();
    const failure = describeFailure(error, signal, { stack: false });
    return { machine, status: null, failure, attention: [], spotCheckEveryMs };
  }
}

function linesOf(examined: readonly Examined[], expected: ExpectationOfAll, output: Output): readonly string[] {
  const { colours } = output;
  const columns = [
    { title: '' },
    { title: 'machine', cut: true },
    { title: 'RPO', align: 'right' as const },
    { title: 'point', align: 'right' as const },
    { title: 'snapshot (UTC)', spare: 1 },
    { title: 'consistent', spare: 3 },
    { title: 'points', align: 'right' as const, spare: 4 },
    { title: 'stored', align: 'right' as const, spare: 2 },
  ];
  const [titles = '', ...rows] = formatTable(
    columns,
    examined.map((each) => rowOf(each, colours)),
    output.columns,
  );
  const few = examined.length <= describedMax;
  const lines = examined.flatMap((each, index) => [rows[index] ?? '', ...notesOn(each, few, output)]);
  return [colours.dim(titles), ...lines, ...closing(examined, expected, colours)];
}

function rowOf(
  { machine, status, failure, attention }: Examined,
  { bold, dim, green, red, yellow }: Colours,
): string[] {
  if (status === null) return [red(failure === null ? 'unknown' : 'failed'), bold(machine)];
  const [worst] = attention;
  const verdict = worst === undefined ? null : worst.state === 'late' ? yellow('late') : red(worst.state);
  const newest = status.replica?.newest ?? null;
  const rpo = rpoNow(status);
  if (newest === null || rpo === null) return [verdict ?? dim('none'), bold(machine), '–', '–', dim('none yet')];
  const snapshotMs = newest.manifest?.snapshotTimeMs ?? newest.publishedMs;
  return [
    verdict ?? green('ok'),
    bold(machine),
    formatDuration(rpo.ms),
    String(newest.point),
    `${rpo.exact ? '' : '< '}${minuteText(snapshotMs)}`,
    newest.manifest === null ? dim('sealed') : shortConsistency[newest.manifest.consistency],
    String(status.replica?.points ?? 0),
    formatBytes(status.replica?.storedBytes ?? 0),
  ];
}

const shortConsistency = {
  'crash-consistent': 'crash',
  'application-consistent': 'application',
  inconsistent: 'no',
} as const;

function notesOn(
  { status, failure, attention, spotCheckEveryMs }: Examined,
  few: boolean,
  { colours, columns }: Output,
): readonly string[] {
  const { bold, dim } = colours;
  const note = (text: string, paint: (line: string) => string): readonly string[] =>
    wrapText(text, columns === null ? null : columns - indent.length).map((line) => indent + paint(line));
  const advice = (fix: string): readonly string[] =>
    note(`${remedyTitle} ${fix}`, (line) => line.replace(remedyTitle, bold(remedyTitle)));
  if (failure !== null) {
    const { message, hint } = failure.document.error;
    return [...note(message, colours.red), ...(hint === null ? [] : advice(hint))];
  }
  const known = status === null || !few ? [] : [lastRunLine(status), trackingLine(status, spotCheckEveryMs)];
  const remarks = [...known.filter((line) => line !== null), ...(status === null ? [] : remarksOn(status))];
  return [
    ...attention.flatMap(({ what, fix }) => [...note(what, String), ...advice(fix)]),
    ...remarks.flatMap((remark) => note(remark, dim)),
  ];
}

const indent = '    ';
const remedyTitle = 'what to do:';

/** What is so of every machine is said once. */
function closing(
  examined: readonly Examined[],
  { ownKeyId: own }: ExpectationOfAll,
  { dim }: Colours,
): readonly string[] {
  const replicas = examined.map(({ status }) => status?.replica).filter((replica) => !!replica);
  if (replicas.length === 0) return [];
  const ours = own !== null && replicas.every(({ ownerKeyId }) => sameBytes(ownerKeyId, own));
  const checked = replicas.every(({ freshness }) => freshness !== 'unknown');
  return [
    dim(
      [
        ...(ours ? ['this host holds the tenure'] : []),
        checked
          ? 'the bucket shows nothing older than this host knows'
          : 'freshness not checked: this host knows no head',
      ].join('; '),
    ),
  ];
}

function documentOf(examined: Examined, { ownKeyId: own }: ExpectationOfAll): object {
  const { machine, status, failure, attention } = examined;
  if (status === null) return { machine, error: failure?.document.error };
  const { replica, local, machineId, runs } = status;
  const newest = replica?.newest ?? null;
  const manifest = newest?.manifest ?? null;
  const rpo = rpoNow(status);
  return {
    machine,
    machineId: machineId && toHex(machineId),
    point: newest?.point ?? null,
    publishedTime: newest && timeText(newest.publishedMs),
    snapshotTime: manifest && timeText(manifest.snapshotTimeMs),
    consistency: manifest?.consistency ?? null,
    partial: manifest && manifest.excluded.length > 0,
    rpoMs: rpo?.ms ?? null,
    rpoCountsFrom: rpo && (rpo.exact ? 'snapshot' : 'publishing'),
    points: replica?.points ?? 0,
    storedBytes: replica?.storedBytes ?? 0,
    head: replica && `${replica.head.seq}:${toHex(replica.head.digest)}`,
    freshness: replica?.freshness ?? 'unknown',
    tenure: replica && { keyId: toHex(replica.ownerKeyId), thisHost: own && sameBytes(replica.ownerKeyId, own) },
    running: local?.running ?? false,
    runningSince: runs.underWay && timeText(runs.underWay.startedMs),
    lastRun: runs.last && runDocument(runs.last),
    unfinishedRun: local?.unfinished ?? null,
    damagedSegments: local?.damagedSegments ?? 0,
    tracking: trackingDocument(trackingOf(status, examined.spotCheckEveryMs)),
    compaction: compactionDocument(status),
    alarms: status.track.alarms.map(({ timeMs, ...alarm }) => ({ ...alarm, time: timeText(timeMs) })),
    attention,
  };
}

/** Null where nobody knows the disks. */
function trackingDocument(disks: readonly DiskTracking[]): object | null {
  if (disks.length === 0) return null;
  const oldest = verifiedTo(disks);
  const timed = disks.map(({ label, checking, verifiedToMs: time }) => ({
    label,
    checking,
    verifiedTo: time === null ? null : timeText(time),
  }));
  return { verifiedTo: oldest === null ? null : timeText(oldest), disks: timed };
}

/** Null where no run compacted anything yet. */
function compactionDocument({ track: { compaction } }: MachineStatus): object | null {
  if (compaction === null || compaction.sentBytes === 0) return null;
  const { sentBytes, bytes, doneMs } = compaction;
  return { sentBytes, mayStillSendBytes: Math.round(bytes), lastTime: doneMs && timeText(doneMs) };
}

function runDocument({ verb, startedMs, endedMs, end }: EndedRun): object {
  return {
    verb,
    startedTime: timeText(startedMs),
    endedTime: endedMs === null ? null : timeText(endedMs),
    outcome: end.how,
    ...(end.how === 'published' && { point: end.point, alarms: end.alarms }),
    ...(end.how === 'failed' && {
      error: { code: end.code, message: end.message, hint: remedyOf(end.code)?.hint ?? null },
    }),
  };
}

function timeText(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
