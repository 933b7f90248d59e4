import type { Command } from 'commander';
import { KeyRefused } from '../../crypto/errors.ts';
import { isDamage } from '../../replica/damage.ts';
import { toHex } from '../../replica/encoding.ts';
import { flagOf, type Manifest } from '../../replica/manifest.ts';
import { listMachineIds } from '../../replica/open-repository.ts';
import { findPrunedPoints, type PrunedPoint } from '../../replica/pruned-points.ts';
import { mustKeep } from '../../replica/retained-points.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { lockedMsOf } from '../choose-point.ts';
import { findMachine } from '../find-machine.ts';
import { describeFreshness, knownHead } from '../freshness.ts';
import { formatBytes, minuteText, secondText } from '../quantities.ts';
import { openSession, type Session } from '../session.ts';
import { formatTable } from '../table.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit points`: what can be restored. */

interface PointsOptions {
  readonly expectHead?: string;
  readonly salvage?: boolean;
}

interface ListedPoint {
  readonly point: number;
  readonly publishedMs: number;
  /** Null where this host may not open it. */
  readonly manifest: Manifest | null;
  /** What keeps it though it was pruned; null: it is retained. */
  readonly pruned: PrunedPoint | null;
}

interface ListedMachine {
  readonly machineId: string;
  readonly head: string;
  readonly freshness: string;
  /** Of every point; 0: nothing was ever locked, or this repository is configured without object lock. */
  readonly immutableUntilMs: number;
  readonly points: readonly ListedPoint[];
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('points')
    .description('list the recovery points of machines')
    .argument('[machines...]', 'names or ids (default: every machine in the repository)')
    .option('--salvage', 'read around damage to the chain: take what is still whole')
    .option('--expect-head <seq:digest>', 'the head that you noted: refuse a bucket that shows an older one')
    .action((names: string[], options: PointsOptions, command: Command) =>
      run(command, (context) => listPoints(names, options, context)),
    );
}

async function listPoints(
  names: readonly string[],
  options: PointsOptions,
  context: CommandContext,
): Promise<CommandAnswer> {
  await using session = await openSession(context, { salvage: options.salvage === true });
  const ids: Uint8Array[] = [];
  for (const name of names) ids.push(await findMachine(session, name, context.signal));
  if (names.length === 0)
    for await (const machineId of listMachineIds(session.store.target, context.signal)) ids.push(machineId);
  const machines: ListedMachine[] = [];
  for (const machineId of ids) machines.push(await listMachine(machineId, options, session, context));
  return {
    document: { machines: machines.map(documentOf) },
    lines:
      machines.length === 0
        ? ['no machine has a replica here']
        : machines.flatMap((machine) => linesOf(machine, context)),
  };
}

async function listMachine(
  machineId: Uint8Array,
  options: PointsOptions,
  session: Session,
  { output, signal }: CommandContext,
): Promise<ListedMachine> {
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal, {
    salvage: options.salvage === true,
  });
  const freshness = await describeFreshness(replica, knownHead(session, machineId, options.expectHead), signal);
  const pruned = await readmitPruned(replica, session, output, signal);
  const points: ListedPoint[] = [];
  for (const point of replica.points)
    points.push({ ...(await listPoint(replica, point, signal)), pruned: pruned.get(point) ?? null });
  const { seq, digest } = replica.chain.head;
  // A copy elsewhere has the same entries, and not the same locks.
  const immutableUntilMs = session.store.retention === null ? 0 : replica.chain.state.lockUntilMs;
  const head = replica.damage.length > 0 ? 'unknown: the chain is damaged' : `${seq}:${toHex(digest)}`;
  return { machineId: toHex(machineId), head, freshness, immutableUntilMs, points };
}

/** Lists also what somebody pruned who should not have, and could not get rid of. */
async function readmitPruned(
  replica: OpenReplica,
  { config }: Session,
  output: CommandContext['output'],
  signal: AbortSignal,
): Promise<ReadonlyMap<number, PrunedPoint>> {
  if (replica.damage.length > 0) return new Map();
  try {
    const pruned = await findPrunedPoints(replica.repo, replica.chain, { lockedMs: lockedMsOf(config) }, signal);
    replica.readmit(pruned);
    return new Map(pruned.points.map((point) => [point.seq, point]));
  } catch (error) {
    if (!isDamage(error)) throw error;
    output.note(`whether pruned points are still kept can't be said: ${String(error)}`);
    return new Map();
  }
}

async function listPoint(
  replica: OpenReplica,
  point: number,
  signal: AbortSignal,
): Promise<Omit<ListedPoint, 'pruned'>> {
  try {
    return await replica.openPoint(point, signal);
  } catch (error) {
    if (!(error instanceof KeyRefused)) throw error;
    return { point, publishedMs: replica.chain.state.points.get(point)?.timeMs ?? 0, manifest: null };
  }
}

/** What retention may not drop, by the flags that can be read here. */
function keptPoints(machine: ListedMachine): ReadonlySet<number> {
  const points = machine.points.filter(({ pruned }) => pruned === null);
  const flaggedPoints = new Set(
    points.filter(({ manifest }) => manifest && flagOf(manifest)).map(({ point }) => point),
  );
  return mustKeep(
    points.map(({ point }) => point),
    (point) => flaggedPoints.has(point),
  );
}

function documentOf(machine: ListedMachine): object {
  const kept = keptPoints(machine);
  return {
    machineId: machine.machineId,
    name: nameOf(machine),
    head: machine.head,
    freshness: machine.freshness,
    immutableUntil: machine.immutableUntilMs === 0 ? null : new Date(machine.immutableUntilMs).toISOString(),
    points: machine.points.map(({ point, publishedMs, manifest, pruned }) => ({
      point,
      publishedTime: new Date(publishedMs).toISOString(),
      ...(pruned !== null && {
        pruned: {
          keptBy: pruned.keptBy,
          until: pruned.untilMs === null ? null : new Date(pruned.untilMs).toISOString(),
        },
      }),
      ...(manifest !== null && {
        snapshotTime: new Date(manifest.snapshotTimeMs).toISOString(),
        consistency: manifest.consistency,
        partial: manifest.excluded.length > 0,
        flag: flagOf(manifest),
        mustKeep: kept.has(point),
        readBytes: manifest.readBytes,
        changedBytes: manifest.changedBytes,
        uploadedBytes: manifest.uploadedBytes,
        disks: manifest.disks.map(({ label, capacityBytes, generation, blockSize, fullReadReason }) => ({
          label,
          capacityBytes,
          generation,
          blockSize,
          fullReadReason,
        })),
        excluded: manifest.excluded,
        attachments: manifest.attachments.map(({ name, length }) => ({ name, bytes: length })),
      }),
    })),
  };
}

function nameOf({ points }: ListedMachine): string | null {
  return points.at(-1)?.manifest?.machineName ?? null;
}

function linesOf(machine: ListedMachine, context: CommandContext): readonly string[] {
  const { bold, dim, yellow } = context.output.colours;
  const rows = machine.points.map(({ point, publishedMs, manifest, pruned }) => {
    const time = secondText(manifest?.snapshotTimeMs ?? publishedMs);
    if (manifest === null)
      return [
        String(point),
        time,
        '',
        '',
        pruned ? yellow(prunedText(pruned)) : '',
        dim('may not be opened from here'),
      ];
    const partial =
      manifest.excluded.length > 0
        ? yellow(` partial (without ${manifest.excluded.map(({ label }) => label).join(', ')})`)
        : '';
    const flag = flagOf(manifest) === null ? '' : yellow(' flagged');
    const gone = pruned === null ? '' : yellow(` ${prunedText(pruned)}`);
    const disks = manifest.disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`).join(', ');
    return [
      String(point),
      time,
      formatBytes(manifest.changedBytes),
      formatBytes(manifest.uploadedBytes),
      `${manifest.consistency}${partial}${flag}${gone}`,
      disks,
    ];
  });
  const titles = ['point', 'snapshot (UTC)', 'changed', 'sent', 'consistency', 'disks'];
  const columns = titles.map((title, i) => ({
    title,
    align: i === 0 || i === 2 || i === 3 ? ('right' as const) : ('left' as const),
    spare: i < 2 ? 0 : i,
  }));
  return [
    `${bold(nameOf(machine) ?? 'machine')}  ${dim(machine.machineId)}`,
    ...formatTable(columns, rows, context.output.columns),
    ...flagLines(machine).map((line) => yellow(line)),
    dim(`head ${machine.head}`),
    dim(machine.freshness),
    ...(machine.immutableUntilMs === 0 ? [] : [immutableLine(machine.immutableUntilMs, context)]),
    '',
  ];
}

function immutableLine(untilMs: number, { output: { colours } }: CommandContext): string {
  const until = secondText(untilMs);
  return untilMs > Date.now()
    ? colours.dim(`immutable until ${until}: nobody can delete what these points need before`)
    : colours.yellow(`was immutable until ${until}`);
}

function prunedText({ keptBy, untilMs }: PrunedPoint): string {
  const keeper = keptBy === 'floor' ? "the root key's floor" : `a ${keptBy}`;
  return `pruned, kept by ${keeper}${untilMs === null ? '' : ` until ${minuteText(untilMs)}`}`;
}

function flagLines({ points }: ListedMachine): readonly string[] {
  return points.flatMap(({ point, manifest }) => {
    const flag = manifest === null ? null : flagOf(manifest);
    return flag === null ? [] : [`point ${point} ${flag}: ransomware or a runaway job?`];
  });
}
