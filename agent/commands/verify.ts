import type { Command } from 'commander';
import { Option } from 'commander';
import type { SegmentLife } from '../../replica/control.ts';
import { toHex } from '../../replica/encoding.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { proofOf, type VerifyLevel, type VerifyReport } from '../../restore/verify/finding.ts';
import { verifyReplica } from '../../restore/verify/verify-replica.ts';
import { newTargetMetrics, withMetrics } from '../../storage-targets/with-metrics.ts';
import { findPoint } from '../choose-point.ts';
import { findMachine, listReplicas, machineNameOf } from '../find-machine.ts';
import { describeFreshness, knownHead } from '../freshness.ts';
import { rangesInFlightMax, workersOf } from '../memory-budget.ts';
import { verifyProgress } from '../progress/verify-progress.ts';
import { watchProgress } from '../progress/watch-progress.ts';
import { formatBytes, formatDuration, plural } from '../quantities.ts';
import { exitCodes } from '../remedy.ts';
import { rememberDamage } from '../remember-damage.ts';
import { openSession, type Session } from '../session.ts';
import { formatTable } from '../table.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit verify`: is what can be restored still whole? */

interface VerifyFlags {
  readonly level: VerifyLevel;
  readonly point?: string[];
  readonly chain?: boolean;
  readonly expectHead?: string;
}

interface Verified {
  readonly machineId: string;
  readonly machineName: string;
  readonly freshness: string;
  readonly report: VerifyReport;
  readonly durationMs: number;
  /** Segments that the next sync will send again. */
  readonly toRepair: number;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('verify')
    .description('check that recovery points are whole, and say which ones a damaged object hurts')
    .argument('[machines...]', 'names or ids (default: every machine in the repository)')
    .addOption(
      new Option('--level <level>', 'present and checksum are cheap; ciphertext reads everything; full also opens it')
        .choices(Object.keys(proofOf))
        .default('full'),
    )
    .option('--point <number...>', 'these points only: numbers, times or latest (default: all that are retained)')
    .option('--chain', 'also walk the chain from its first entry')
    .option('--expect-head <seq:digest>', 'the head that you noted: refuse a bucket that shows an older one')
    .action((names: string[], flags: VerifyFlags, command: Command) =>
      run(command, (context) => verifyAll(names, flags, context)),
    );
}

async function verifyAll(
  names: readonly string[],
  flags: VerifyFlags,
  context: CommandContext,
): Promise<CommandAnswer> {
  await using session = await openSession(context, { salvage: true });
  const ids: Uint8Array[] = [];
  for (const name of names) ids.push(await findMachine(session, name, context.signal));
  if (names.length === 0) for await (const { machineId } of listReplicas(session, context.signal)) ids.push(machineId);
  await using workers = new RestoreWorkers(workersOf(session.config));
  const verified: Verified[] = [];
  for (const machineId of ids) verified.push(await verifyMachine(machineId, flags, session, workers, context));
  const damaged = verified.some(({ report }) => report.findings.length > 0);
  return {
    document: { machines: verified.map(({ report, ...rest }) => ({ ...rest, ...report })) },
    lines:
      verified.length === 0 ? ['no machine has a replica here'] : verified.flatMap((each) => linesOf(each, context)),
    exitCode: damaged ? exitCodes.damage : exitCodes.ok,
  };
}

async function verifyMachine(
  machineId: Uint8Array,
  flags: VerifyFlags,
  session: Session,
  workers: RestoreWorkers,
  context: CommandContext,
): Promise<Verified> {
  const { signal } = context;
  const started = performance.now();
  const asked = newTargetMetrics();
  const repo = { ...session.repo, target: withMetrics(session.repo.target, asked) };
  using replica = await OpenReplica.open(repo, machineId, [session.provider], signal, { salvage: true });
  const machineName = await machineNameOf(replica, signal);
  const freshness = await describeFreshness(replica, knownHead(session, machineId, flags.expectHead), signal);
  let points: number[] | null = null;
  for (const wanted of flags.point ?? [])
    points = [...(points ?? []), await findPoint(replica, wanted, session.config, signal)];
  const inFlightMax = rangesInFlightMax(session.config);
  const needed = segmentsOf(replica, points ?? replica.points);
  const report = verifyProgress(machineName ?? toHex(machineId), flags.level, needed, asked, started);
  using _watching = watchProgress(context.output, report);
  const verified = await verifyReplica(
    replica,
    { level: flags.level, points, chain: flags.chain === true, workers, inFlightMax },
    signal,
  );
  const toRepair = rememberDamage(session, machineId, verified);
  const durationMs = performance.now() - started;
  return {
    machineId: toHex(machineId),
    machineName: machineName ?? toHex(machineId),
    freshness,
    report: verified,
    durationMs,
    toRepair,
  };
}

function segmentsOf({ chain }: OpenReplica, points: readonly number[]): readonly SegmentLife[] {
  const isNeeded = ({ birth, death }: SegmentLife): boolean =>
    points.some((point) => point >= birth && (death === 0 || point < death));
  return [...chain.state.segments.values()].filter(isNeeded);
}

function linesOf(
  { machineName, freshness, report, durationMs, toRepair }: Verified,
  context: CommandContext,
): readonly string[] {
  const { bold, dim, green, red, yellow } = context.output.colours;
  const { counts, findings, whole, hurt, doubtful } = report;
  const verdict = findings.length > 0 ? red('damaged') : provesNothing(report) ? yellow('unproven') : green('ok');
  const rows = findings.map(({ object, code, points, certain }) => [
    code,
    object,
    `${certain ? '' : 'perhaps '}${points.join(', ')}`,
  ]);
  return [
    `${verdict} ${bold(machineName)}  level ${report.level}: ${counts.segments} segments, ${counts.blocks} blocks, ${formatBytes(report.readBytes)} read in ${formatDuration(durationMs)}`,
    `   points whole: ${whole.join(', ') || 'none'}${hurt.length > 0 ? `   ${red(`hurt: ${hurt.join(', ')}`)}` : ''}${doubtful.length > 0 ? `   ${yellow(`in doubt: ${doubtful.join(', ')}`)}` : ''}`,
    ...(rows.length > 0
      ? formatTable([{ title: 'error' }, { title: 'object' }, { title: 'points' }], rows).map((line) => `   ${line}`)
      : []),
    ...(toRepair > 0
      ? [
          `   the next sync sends the blocks of ${plural(toRepair, 'damaged segment')} again, as far as the source still has them`,
        ]
      : []),
    ...(findings.length === 0 && !provesNothing(report) ? [dim(`   ${report.proves}`)] : []),
    ...(report.level === 'checksum' && counts.unprovable > 0
      ? [yellow(`   the store keeps no checksum of ${counts.unprovable} segments: use level ciphertext`)]
      : []),
    dim(`   ${freshness}`),
  ];
}

/** A store without checksums leaves that level nothing to compare. */
function provesNothing({ level, counts }: VerifyReport): boolean {
  return level === 'checksum' && counts.unprovable === counts.segments && counts.segments > 0;
}
