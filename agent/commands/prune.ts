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
import { chooseMachines, machinesOfGroup } from './choose-machines.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit prune`: drop recovery points by the retention of the configuration. Space comes back by `failkit sweep`. */

const dayMs = 24 * 3_600_000;

interface PruneFlags {
  readonly dryRun?: boolean;
  readonly group?: string;
}

interface PrunedMachine {
  readonly machine: RetainedMachine;
  readonly points: readonly PlannedPoint[];
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('prune')
    .description('drop recovery points that the retention of the configuration does not keep')
    .argument('[machines...]', 'names from the configuration (default: all that have a retention)')
    .option('--group <name>', 'the machines of this group of the configuration')
    .option('--dry-run', 'say which would go, why the others stay, and by which retention')
    .action((names: string[], flags: PruneFlags, command: Command) =>
      run(command, (context) => pruneAll(names, flags, context)),
    );
}

async function pruneAll(names: readonly string[], flags: PruneFlags, context: CommandContext): Promise<CommandAnswer> {
  const chosen = machinesWithRetention(context.config(), names, flags.group);
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

function machinesWithRetention(
  config: Config,
  names: readonly string[],
  group: string | undefined,
): readonly RetainedMachine[] {
  const machines = group === undefined ? chooseMachines(config, names) : machinesOfGroup(config, group, names);
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
    return { machine, points: await planMachine(replica.chain, machine, session, signal) };
  }
  let points: readonly PlannedPoint[] = [];
  const choose = async (chain: Chain): Promise<readonly number[]> => {
    points = await planMachine(chain, machine, session, signal);
    return points.filter(({ reasons }) => reasons.length === 0).map(({ seq }) => seq);
  };
  const agent = await openAgentKey(session.config);
  await prunePoints(session.repo, machineId, { agent, now: Date.now, choose }, signal);
  return { machine, points };
}

function documentOf({ machine, points }: PrunedMachine): object {
  return {
    machine: machine.name,
    group: machine.group,
    retention: { from: machine.retentionFrom, ...shownPolicy(machine) },
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
    `${bold(machine.name)}  ${plural(points.length - gone, 'point')} kept, ${gone} ${dryRun ? 'would go' : 'pruned'}`,
    ...(dryRun ? [dim(`   retention of ${ownerOf(machine)}: ${policyText(machine)}`)] : []),
    ...(gone > 0 || dryRun ? formatTable(columns, rows, context.output.columns).map((line) => `   ${line}`) : []),
  ];
}

function ownerOf({ retentionFrom, group }: RetainedMachine): string {
  if (retentionFrom === 'machine') return 'this machine';
  return retentionFrom === 'group' ? `group ${group}` : 'all machines';
}

/** What it keeps, as the configuration has it. */
function shownPolicy({ retention: { withinMs, ...counts } }: RetainedMachine): Readonly<Record<string, number>> {
  const all = { ...counts, withinDays: withinMs / dayMs };
  return Object.fromEntries(Object.entries(all).filter(([, count]) => count > 0));
}

function policyText(machine: RetainedMachine): string {
  return Object.entries(shownPolicy(machine))
    .map(([rule, count]) => `${rule} ${count}`)
    .join(', ');
}
