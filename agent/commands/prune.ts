import type { Command } from 'commander';
import type { Chain } from '../../replica/chain.ts';
import type { PlannedPoint } from '../../replica/plan-prune.ts';
import { prunePoints } from '../../replica/prune.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import type { Config } from '../config/config-schema.ts';
import { findMachine } from '../find-machine.ts';
import { plural, secondText } from '../quantities.ts';
import { planMachine, type RetainedMachine } from '../retention/plan-machine.ts';
import { checkStore, openSession, type Session } from '../session.ts';
import { formatTable } from '../table.ts';
import { openAgentKey } from '../wire.ts';
import { chooseMachines } from './choose-machines.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit prune`: drop recovery points by the retention of the configuration. Space comes back by `failkit sweep`. */

interface PruneFlags {
  readonly dryRun?: boolean;
}

interface PrunedMachine {
  readonly machine: string;
  readonly points: readonly PlannedPoint[];
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('prune')
    .description('drop recovery points that the retention of the configuration does not keep')
    .argument('[machines...]', 'names from the configuration (default: all that have a retention)')
    .option('--dry-run', 'say which would go, and why the others stay')
    .action((names: string[], flags: PruneFlags, command: Command) =>
      run(command, (context) => pruneAll(names, flags, context)),
    );
}

async function pruneAll(names: readonly string[], flags: PruneFlags, context: CommandContext): Promise<CommandAnswer> {
  const chosen = machinesWithRetention(context.config(), names);
  const dryRun = flags.dryRun === true;
  await using session = await openSession(context);
  if (!dryRun) await checkStore(session, context.signal);
  const machines: PrunedMachine[] = [];
  for (const machine of chosen) machines.push(await pruneMachine(machine, dryRun, session, context.signal));
  return {
    document: { dryRun, machines: machines.map(documentOf) },
    lines: machines.flatMap((machine) => linesOf(machine, dryRun, context)),
  };
}

function machinesWithRetention(config: Config, names: readonly string[]): readonly RetainedMachine[] {
  const machines = chooseMachines(config, names);
  const retained = machines.filter((machine): machine is RetainedMachine => machine.retention !== null);
  const without = machines.find(({ retention }) => retention === null);
  if (without !== undefined && (names.length > 0 || retained.length === 0)) {
    throw new ConfigInvalid('configuration', [
      { line: null, key: 'retention', what: `is missing: ${without.name} keeps all of its points` },
    ]);
  }
  return retained;
}

async function pruneMachine(
  machine: RetainedMachine,
  dryRun: boolean,
  session: Session,
  signal: AbortSignal,
): Promise<PrunedMachine> {
  const machineId = await findMachine(session, machine.name, signal);
  if (dryRun) {
    using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal);
    return { machine: machine.name, points: await planMachine(replica.chain, machine, session, signal) };
  }
  let points: readonly PlannedPoint[] = [];
  const choose = async (chain: Chain): Promise<readonly number[]> => {
    points = await planMachine(chain, machine, session, signal);
    return points.filter(({ reasons }) => reasons.length === 0).map(({ seq }) => seq);
  };
  const agent = await openAgentKey(session.config);
  await prunePoints(session.repo, machineId, { agent, now: Date.now, choose }, signal);
  return { machine: machine.name, points };
}

function documentOf({ machine, points }: PrunedMachine): object {
  return {
    machine,
    points: points.map(({ seq, timeMs, reasons }) => ({
      point: seq,
      publishedTime: new Date(timeMs).toISOString(),
      kept: reasons.length > 0,
      reasons,
    })),
  };
}

function linesOf({ machine, points }: PrunedMachine, dryRun: boolean, context: CommandContext): readonly string[] {
  const { bold, dim, red } = context.output.colours;
  const gone = points.filter(({ reasons }) => reasons.length === 0).length;
  const rows = points.map(({ seq, timeMs, reasons }) => [
    String(seq),
    secondText(timeMs),
    reasons.length === 0 ? red(dryRun ? 'would go' : 'gone') : dim(reasons.join(', ')),
  ]);
  const columns = [{ title: 'point', align: 'right' as const }, { title: 'published (UTC)' }, { title: 'kept as' }];
  return [
    `${bold(machine)}  ${plural(points.length - gone, 'point')} kept, ${gone} ${dryRun ? 'would go' : 'pruned'}`,
    ...(gone > 0 || dryRun ? formatTable(columns, rows, context.output.columns).map((line) => `   ${line}`) : []),
  ];
}
