import { randomBytes } from 'node:crypto';
import type { Command } from 'commander';
import { ReplicaNotFound } from '../../replica/chain.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { segmentKey } from '../../replica/names.ts';
import { Bandwidth } from '../../storage-targets/with-bandwidth.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import { describeFailure } from '../failure.ts';
import { findMachine, listReplicas } from '../find-machine.ts';
import { keepingFailedStart, keepingRunRecord } from '../keep-run-record.ts';
import { segmentsInFlightMax, workersOf } from '../memory-budget.ts';
import { type PublishedPoint, protectMachine } from '../protect/protect-machine.ts';
import type { RunProgress } from '../protect/replicate-snapshot.ts';
import { formatBytes, formatDuration, formatSpeed, plural } from '../quantities.ts';
import { type ExitCode, exitCodes } from '../remedy.ts';
import { checkStore, openSession, type Session } from '../session.ts';
import { StateUnusable } from '../state/errors.ts';
import { MachineState } from '../state/machine-state.ts';
import { formatTable } from '../table.ts';
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
  for (const machine of machines) outcomes.push(await protectOne(verb, machine, options, session, context));
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
  options: ProtectOptions,
  session: Session,
  context: CommandContext,
): Promise<Outcome> {
  const started = performance.now();
  const progress: RunProgress = { readBytes: 0, changedBytes: 0, skippedBytes: 0, capacityBytes: 0, uploadedBytes: 0 };
  const timer = setInterval(
    () => context.output.progress(progressLine(machine.name, progress, performance.now() - started)),
    200,
  );
  const outcome = (published: PublishedPoint | null, failure: Outcome['failure']): Outcome => ({
    machine: machine.name,
    durationMs: performance.now() - started,
    progress,
    published,
    failure,
  });
  try {
    const published = await publishPoint({ verb, machine, options, session, progress, context });
    context.logger().info({ machine: machine.name, point: published.point, ...progress }, 'recovery point published');
    return outcome(published, null);
  } catch (error) {
    context.signal.throwIfAborted();
    const failure = describeFailure(error, context.signal, { stack: false });
    logFailure(machine.name, failure, context);
    return outcome(null, failure);
  } finally {
    clearInterval(timer);
  }
}

/** On a terminal the command itself says what went wrong; a log file has to hold it, too. */
function logFailure(machine: string, failure: ReturnType<typeof describeFailure>, context: CommandContext): void {
  if (context.config().logging.file === null) return;
  context.logger().error({ machine, ...failure.document.error }, 'no recovery point was published');
}

interface Run {
  readonly verb: Verb;
  readonly machine: MachineConfig;
  readonly options: ProtectOptions;
  readonly session: Session;
  readonly progress: RunProgress;
  readonly context: CommandContext;
}

async function publishPoint(run: Run): Promise<PublishedPoint> {
  using state = new MachineState(run.session.config.state, run.machine.name);
  return await keepingRunRecord(state, run.verb, run.context.signal, () => publishFrom(state, run));
}

async function publishFrom(
  state: MachineState,
  { verb, machine, options, session, progress, context }: Run,
): Promise<PublishedPoint> {
  const { config, repo, provider } = session;
  if (provider.provider === 'recovery-key') {
    throw new ConfigInvalid('configuration', [
      { line: null, key: 'keys.provider', what: 'is recovery-key: such a host only lists, verifies and restores' },
    ]);
  }
  const agent = await openAgentKey(config);
  const machineId = await claimReplica(verb, machine.name, options, state, session, context.signal);
  await using connection = connectSource(machine, new Bandwidth(config.limits.readBytesPerSecond));
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
      now: Date.now,
      options: {
        access: config.access,
        sourceKind: machine.source.type,
        snapshot: { quiesce: machine.quiesce, whenChanging: machine.whenChanging },
        resync: verb === 'resync',
        takeOver: options.takeOver === true,
        segmentBytes: config.segmentBytes,
        compressionLevel: config.compression.level,
        workers: workersOf(config),
        segmentsInFlightMax: segmentsInFlightMax(config),
      },
    },
    context.signal,
  );
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

function progressLine(machine: string, progress: RunProgress, elapsedMs: number): string {
  const { readBytes, capacityBytes, uploadedBytes, skippedBytes } = progress;
  if (capacityBytes === 0) return `${machine}  preparing…`;
  const share = Math.min(1, readBytes / capacityBytes);
  const speed = (readBytes / elapsedMs) * 1000;
  const left = share > 0.01 ? `, ${formatDuration((elapsedMs / share) * (1 - share))} left` : '';
  return `${machine}  ${Math.floor(share * 100)} %  ${formatBytes(readBytes)} of ${formatBytes(capacityBytes)} read at ${formatSpeed(speed)}, ${formatBytes(skippedBytes)} unchanged, ${formatBytes(uploadedBytes)} sent${left}`;
}

function describe(outcomes: readonly Outcome[], context: CommandContext): CommandAnswer {
  const { red, green, yellow } = context.output.colours;
  const rows = outcomes.map(({ machine, published, failure, progress, durationMs }) => {
    if (published === null)
      return [
        red('failed'),
        machine,
        '',
        '',
        '',
        '',
        formatDuration(durationMs),
        failure?.document.error.message ?? '',
      ];
    const { manifest, rpoMs } = published;
    const notes = [
      ...manifest.disks
        .filter((disk) => disk.fullReadReason.startsWith('resync'))
        .map((disk) => `${disk.label}: ${disk.fullReadReason}`),
      ...(manifest.excluded.length > 0 ? [yellow('partial')] : []),
      ...(manifest.consistency === 'inconsistent' ? [yellow('inconsistent')] : []),
      ...(published.adopted ? ['went on with an interrupted run'] : []),
      ...repairNotes(published.repair),
      ...(rpoMs === null ? [] : [`RPO ${formatDuration(rpoMs)}`]),
    ];
    const sizes = [progress.readBytes, progress.changedBytes, progress.uploadedBytes].map(formatBytes);
    return [green('ok'), machine, String(published.point), ...sizes, formatDuration(durationMs), notes.join('; ')];
  });
  const titles = ['', 'machine', 'point', 'read', 'changed', 'sent', 'took', 'notes'];
  const columns = titles.map((title, i) => ({
    title,
    align: i >= 2 && i <= 6 ? ('right' as const) : ('left' as const),
  }));
  return { document: { machines: outcomes.map(documentOf) }, lines: formatTable(columns, rows) };
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

function documentOf({ machine, published, failure, progress, durationMs }: Outcome): object {
  if (published === null) return { machine, durationMs, error: failure?.document.error };
  const { manifest, head, point, rpoMs, adopted, repair } = published;
  return {
    machine,
    point,
    head: `${head.seq}:${toHex(head.digest)}`,
    snapshotTime: new Date(manifest.snapshotTimeMs).toISOString(),
    publishedTime: new Date(published.publishedMs).toISOString(),
    rpoMs,
    consistency: manifest.consistency,
    partial: manifest.excluded.length > 0,
    adopted,
    repair: repair && { ...repair, segments: repair.segments.map(segmentKey) },
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
