import { randomBytes } from 'node:crypto';
import type { Command } from 'commander';
import { ReplicaNotFound } from '../../replica/chain.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { flagOf } from '../../replica/manifest.ts';
import { segmentKey } from '../../replica/names.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import { describeFailure } from '../failure.ts';
import { findMachine, listReplicas } from '../find-machine.ts';
import { keepingFailedStart, keepingRunRecord } from '../keep-run-record.ts';
import { segmentsInFlightMax, workersOf } from '../memory-budget.ts';
import type { Colours, Output } from '../output.ts';
import { Coverage, withCoverage } from '../progress/coverage.ts';
import { runProgress } from '../progress/run-progress.ts';
import { watchProgress } from '../progress/watch-progress.ts';
import type { CompactionLimits } from '../protect/compaction.ts';
import { type PublishedPoint, protectMachine } from '../protect/protect-machine.ts';
import { noProgress, type RunProgress } from '../protect/replicate-snapshot.ts';
import { stretchBytes } from '../protect/stretch.ts';
import { formatBytes, formatDuration, plural } from '../quantities.ts';
import { type ExitCode, exitCodes } from '../remedy.ts';
import { checkStore, openSession, type Session } from '../session.ts';
import { StateUnusable } from '../state/errors.ts';
import { MachineState } from '../state/machine-state.ts';
import { formatTable } from '../table.ts';
import type { Alarm } from '../vigilance/track-record.ts';
import { connectSource, openAgentKey } from '../wire.ts';
import { chooseMachines } from './choose-machines.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit seed`, `sync` and `resync`: publish one recovery point of each machine. */

type Verb = 'seed' | 'sync' | 'resync';

interface ProtectOptions {
  readonly takeOver?: boolean;
  readonly newReplica?: boolean;
}

const descriptions: Readonly<Record<Verb, string>> = {
  seed: 'make the first full copy of machines, or go on with one that was interrupted',
  sync: 'publish a recovery point of machines: send what changed since the last one',
  resync: 'read machines in full, compare with the newest recovery point, send what differs',
};

export function register(program: Command, run: RunCommand): void {
  for (const verb of ['seed', 'sync', 'resync'] as const) {
    const command = program
      .command(verb)
      .description(descriptions[verb])
      .argument('[machines...]', 'names from the configuration (default: all)')
      .option('--take-over', 'protect a machine from this host although another one did so before')
      .action((names: string[], options: ProtectOptions, command: Command) =>
        run(command, (context) => protectAll(verb, names, options, context)),
      );
    if (verb === 'seed') {
      command.option('--new-replica', 'begin another replica of the machines, next to the one whose chain is damaged');
    }
  }
}

/** The machine was seeded already, or was never. */
export class WrongVerb extends Error {
  readonly code = 'WRONG_VERB';
  override readonly name = 'WrongVerb';
}

interface Outcome {
  readonly machine: string;
  readonly durationMs: number;
  readonly progress: RunProgress;
  readonly published: PublishedPoint | null;
  readonly failure: ReturnType<typeof describeFailure> | null;
}

async function protectAll(
  verb: Verb,
  names: readonly string[],
  options: ProtectOptions,
  context: CommandContext,
): Promise<CommandAnswer> {
  const machines = chooseMachines(context.config(), names);
  await using session = await keepingFailedStart(
    context.config().state,
    verb,
    names.length === 0 ? null : names,
    context.signal,
    () => openCheckedSession(context),
  );
  const outcomes: Outcome[] = [];
  for (const [i, machine] of machines.entries()) {
    const title = machines.length === 1 ? machine.name : `${i + 1}/${machines.length} ${machine.name}`;
    outcomes.push(await protectOne(verb, machine, title, options, session, context));
  }
  if (outcomes.length === 1 && outcomes[0]?.failure) throw outcomes[0].failure.error;
  return { ...describe(outcomes, context), exitCode: worstExitCode(outcomes) };
}

async function openCheckedSession(context: CommandContext): Promise<Session> {
  await using opened = new AsyncDisposableStack();
  const session = opened.use(await openSession(context));
  await checkStore(session, context.signal);
  opened.move();
  return session;
}

/** One machine's failure does not keep the others from being protected. */
async function protectOne(
  verb: Verb,
  machine: MachineConfig,
  title: string,
  options: ProtectOptions,
  session: Session,
  context: CommandContext,
): Promise<Outcome> {
  const started = performance.now();
  const progress = noProgress();
  const coverage = new Coverage();
  using _watching = watchProgress(
    context.output,
    runProgress(title, coverage, progress, inFlightBytesMax(context), started),
  );
  const outcome = (published: PublishedPoint | null, failure: Outcome['failure']): Outcome => ({
    machine: machine.name,
    durationMs: performance.now() - started,
    progress,
    published,
    failure,
  });
  try {
    const published = await publishPoint({ verb, machine, options, session, progress, coverage, context });
    context.logger().info({ machine: machine.name, ...loggedOf(published), ...progress }, 'recovery point published');
    logAlarms(machine.name, published, context);
    return outcome(published, null);
  } catch (error) {
    context.signal.throwIfAborted();
    const failure = describeFailure(error, context.signal, { stack: false });
    logFailure(machine.name, failure, context);
    return outcome(null, failure);
  }
}

/** What somebody asks a log for later: why a disk was read in full, and how the guest was frozen. */
function loggedOf({ point, manifest, frozenMs }: PublishedPoint) {
  const fullReads = manifest.disks.filter(({ fullReadReason }) => fullReadReason !== '');
  return {
    point,
    consistency: manifest.consistency,
    frozenMs,
    fullReads: fullReads.map(({ label, fullReadReason }) => ({ disk: label, reason: fullReadReason })),
  };
}

/** Twice what the workers are kept busy with: an upper bound may be generous. */
function inFlightBytesMax(context: CommandContext): number {
  return 4 * workersOf(context.config()) * stretchBytes;
}

/** On a terminal the command itself says what went wrong; a log file has to hold it, too. */
function logFailure(machine: string, failure: ReturnType<typeof describeFailure>, context: CommandContext): void {
  if (context.config().logging.file === null) return;
  context.logger().error({ machine, ...failure.document.error }, 'no recovery point was published');
}

/** As failures: on a terminal the command itself says it. */
function logAlarms(machine: string, { point, alarms }: PublishedPoint, context: CommandContext): void {
  if (context.config().logging.file === null) return;
  for (const { kind, what } of alarms) context.logger().warn({ machine, point, kind, what }, 'alarm');
}

interface Run {
  readonly verb: Verb;
  readonly machine: MachineConfig;
  readonly options: ProtectOptions;
  readonly session: Session;
  readonly progress: RunProgress;
  readonly coverage: Coverage;
  readonly context: CommandContext;
}

async function publishPoint(run: Run): Promise<PublishedPoint> {
  using state = new MachineState(run.session.config.state, run.machine.name);
  return await keepingRunRecord(state, run.verb, run.context.signal, () => publishFrom(state, run));
}

async function publishFrom(
  state: MachineState,
  { verb, machine, options, session, progress, coverage, context }: Run,
): Promise<PublishedPoint> {
  const { config, repo, provider } = session;
  if (provider.provider === 'recovery-key') {
    throw new ConfigInvalid('configuration', [
      { line: null, key: 'keys.provider', what: 'is recovery-key: such a host only lists, verifies and restores' },
    ]);
  }
  const agent = await openAgentKey(config);
  const machineId = await claimReplica(verb, machine.name, options, state, session, context.signal);
  await using connection = withCoverage(
    connectSource(config, machine, session.readRate, session.hypervHosts),
    coverage,
  );
  return await protectMachine(
    {
      repo,
      machineId,
      machineName: machine.name,
      connection,
      provider,
      agent,
      state,
      progress,
      retention: session.store.retention,
      now: Date.now,
      options: {
        access: config.access,
        sourceKind: machine.source.type,
        snapshot: { quiesce: machine.quiesce, whenChanging: machine.whenChanging },
        resync: verb === 'resync',
        takeOver: options.takeOver === true,
        segmentBytes: config.segmentBytes,
        compression: config.compression.level,
        workers: workersOf(config),
        segmentsInFlightMax: segmentsInFlightMax(config),
        spotCheck: machine.spotCheck,
        changeAlarm: machine.changeAlarm,
        compaction: compactionOf(machine),
      },
    },
    context.signal,
  );
}

/** Where all points stay, nothing goes with the older ones. */
function compactionOf({ retention, compaction }: MachineConfig): CompactionLimits {
  return retention === null ? { ...compaction, share: 0 } : compaction;
}

/** The machine's replica in this repository: the one that the state names, one of the same name on a take-over, or a new one. */
async function claimReplica(
  verb: Verb,
  machineName: string,
  options: ProtectOptions,
  state: MachineState,
  session: Session,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { repositoryId } = session.repo.repository;
  if (options.newReplica === true) state.forgetReplica();
  if (state.repositoryId !== null && !sameBytes(state.repositoryId, repositoryId)) {
    throw new StateUnusable(
      `the state of machine ${machineName} belongs to repository ${toHex(state.repositoryId)}, but this is ${toHex(repositoryId)}: use another state folder for another repository`,
    );
  }
  const known = state.machineId;
  if (known !== null) {
    if (verb === 'seed' && state.hasPublished) {
      throw new WrongVerb(
        `machine ${machineName} has recovery points already: use failkit sync, or resync to read it in full`,
      );
    }
    return known;
  }
  if (options.takeOver === true) {
    const taken = await findMachine(session, machineName, signal);
    state.claim(repositoryId, taken);
    return taken;
  }
  if (options.newReplica !== true) await requireNoNamesake(machineName, session, signal);
  if (verb !== 'seed')
    throw new WrongVerb(`machine ${machineName} has no recovery point yet: begin with failkit seed ${machineName}`);
  const fresh = Uint8Array.from(randomBytes(16));
  state.claim(repositoryId, fresh);
  return fresh;
}

async function requireNoNamesake(machineName: string, session: Session, signal: AbortSignal): Promise<void> {
  for await (const { machineId, machineName: name } of listReplicas(session, signal)) {
    if (name !== machineName) continue;
    throw new ReplicaNotFound(
      `this host has no state for machine ${machineName}, but the repository holds its replica ${toHex(machineId)}: run with --take-over if this host is to go on with it`,
    );
  }
}

const columns = [
  { title: '' },
  { title: 'machine', cut: true },
  { title: 'point', align: 'right' as const },
  { title: 'read', align: 'right' as const, spare: 1 },
  { title: 'changed', align: 'right' as const, spare: 2 },
  { title: 'sent', align: 'right' as const },
  { title: 'took', align: 'right' as const },
  { title: 'RPO', align: 'right' as const, spare: 3 },
];

function describe(outcomes: readonly Outcome[], { output }: CommandContext): CommandAnswer {
  const [titles = '', ...rows] = formatTable(
    columns,
    outcomes.map((outcome) => rowOf(outcome, output.colours)),
    output.columns,
  );
  const lines = outcomes.flatMap((outcome, i) => [
    rows[i] ?? '',
    ...notesOn(outcome, output).map((note) => indent + note),
  ]);
  return { document: { machines: outcomes.map(documentOf) }, lines: [output.colours.dim(titles), ...lines] };
}

const indent = '    ';

function rowOf({ machine, published, progress, durationMs }: Outcome, { bold, green, red }: Colours): string[] {
  const took = formatDuration(durationMs);
  if (published === null) return [red('failed'), bold(machine), '–', '–', '–', '–', took, '–'];
  const sizes = [progress.readBytes, progress.changedBytes, progress.uploadedBytes].map(formatBytes);
  const rpo = published.rpoMs === null ? '–' : formatDuration(published.rpoMs);
  return [green('ok'), bold(machine), String(published.point), ...sizes, took, rpo];
}

function notesOn({ published, failure, progress }: Outcome, { colours }: Output): readonly string[] {
  const { bold, yellow } = colours;
  if (published === null) {
    const { message = '', hint = null } = failure?.document.error ?? {};
    return [message, ...(hint === null ? [] : [`${bold('what to do:')} ${hint}`])];
  }
  const { manifest, frozenMs, adopted, repair, alarms, keyServiceAway, compactedSegments } = published;
  return [
    ...alarms.map(({ kind, what }) => yellow(alarmNote(kind, what))),
    ...(frozenMs === null ? [] : [`${manifest.consistency}: the guest stood still for ${Math.ceil(frozenMs)} ms`]),
    ...manifest.disks
      .filter((disk) => disk.fullReadReason.startsWith('resync'))
      .map((disk) => `${disk.label}: ${disk.fullReadReason}`),
    ...manifest.excluded.map(({ label, reason }) => yellow(`partial: ${label} is not in this point: ${reason}`)),
    ...(manifest.consistency === 'inconsistent'
      ? [yellow('inconsistent: the disks changed while they were read')]
      : []),
    ...(adopted ? ['went on with an interrupted run'] : []),
    ...(keyServiceAway === null ? [] : [yellow(`sealed under the data key that is kept here: ${keyServiceAway}`)]),
    ...repairNotes(repair),
    ...compactionNotes(compactedSegments, progress.compactedBytes),
  ];
}

function alarmNote(kind: Alarm['kind'], what: string): string {
  return kind === 'change' ? `flagged: ${what}: ransomware or a runaway job?` : `tracking was wrong: ${what}`;
}

/** What was sent again because the bucket had lost it, and which older points can't be helped. */
function repairNotes(repair: PublishedPoint['repair']): readonly string[] {
  if (repair === null) return [];
  const { segments, resentBlocks, hurtPoints } = repair;
  const lost = hurtPoints.length > 0 ? `; lost for good where points ${hurtPoints.join(', ')} need more` : '';
  return [
    `repaired: ${plural(resentBlocks, 'block')} of ${plural(segments.length, 'damaged segment')} sent again${lost}`,
  ];
}

function compactionNotes(segments: number, bytes: number): readonly string[] {
  if (segments === 0) return [];
  return [`compacted: ${formatBytes(bytes)} of ${plural(segments, 'mostly dead segment')} sent again`];
}

function documentOf({ machine, published, failure, progress, durationMs }: Outcome): object {
  if (published === null) return { machine, durationMs, error: failure?.document.error };
  const { manifest, head, point, rpoMs, frozenMs, adopted, repair, alarms, keyServiceAway, compactedSegments } =
    published;
  return {
    machine,
    point,
    head: `${head.seq}:${toHex(head.digest)}`,
    snapshotTime: new Date(manifest.snapshotTimeMs).toISOString(),
    publishedTime: new Date(published.publishedMs).toISOString(),
    rpoMs,
    consistency: manifest.consistency,
    frozenMs,
    partial: manifest.excluded.length > 0,
    adopted,
    keyServiceAway,
    flag: flagOf(manifest),
    alarms: alarms.map(({ kind, what }) => ({ kind, what })),
    repair: repair && { ...repair, segments: repair.segments.map(segmentKey) },
    compactedSegments,
    durationMs,
    ...progress,
    disks: manifest.disks.map(({ label, capacityBytes, generation, fullReadReason }) => ({
      label,
      capacityBytes,
      generation,
      fullReadReason,
    })),
  };
}

function worstExitCode(outcomes: readonly Outcome[]): ExitCode {
  return outcomes.find(({ failure }) => failure !== null)?.failure?.exitCode ?? exitCodes.ok;
}
