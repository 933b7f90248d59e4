import type { Command } from 'commander';
import { toHex } from '../../replica/encoding.ts';
import { measureSpace, type SpaceUsed } from '../../replica/space.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import { findMachine, listReplicas, machineNameOf } from '../find-machine.ts';
import { formatBytes, plural } from '../quantities.ts';
import { planMachine } from '../retention/plan-machine.ts';
import { openSession, type Session } from '../session.ts';
import { formatTable } from '../table.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit du`: where the bytes of a bucket are, and what pruning and sweeping would free. */

interface MeasuredMachine {
  readonly machineId: string;
  readonly machine: string;
  readonly points: number;
  readonly space: SpaceUsed;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('du')
    .description('say where the bytes of replicas are, and what the next prune and sweep would free')
    .argument('[machines...]', 'names or ids (default: every machine in the repository)')
    .action((names: string[], _options: unknown, command: Command) =>
      run(command, (context) => measureAll(names, context)),
    );
}

async function measureAll(names: readonly string[], context: CommandContext): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const ids: Uint8Array[] = [];
  for (const name of names) ids.push(await findMachine(session, name, context.signal));
  if (names.length === 0) for await (const { machineId } of listReplicas(session, context.signal)) ids.push(machineId);
  const machines: MeasuredMachine[] = [];
  for (const machineId of ids) machines.push(await measure(machineId, session, context.signal));
  return {
    document: { machines: machines.map(({ space, ...rest }) => ({ ...rest, ...space })) },
    lines: machines.length === 0 ? ['no machine has a replica here'] : linesOf(machines, context),
  };
}

async function measure(machineId: Uint8Array, session: Session, signal: AbortSignal): Promise<MeasuredMachine> {
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal);
  const machine = await machineNameOf(replica, signal);
  const configured = session.config.machines.find(({ name }) => name === machine);
  const kept = await keptBy(configured, replica, session, signal);
  const space = await measureSpace(session.store.target, replica.chain, kept, signal);
  const id = toHex(machineId);
  return { machineId: id, machine: machine ?? id, points: replica.points.length, space };
}

async function keptBy(
  machine: MachineConfig | undefined,
  replica: OpenReplica,
  session: Session,
  signal: AbortSignal,
): Promise<readonly number[]> {
  if (machine === undefined || machine.retention === null) return replica.points;
  const planned = await planMachine(replica.chain, { ...machine, retention: machine.retention }, session, signal);
  return planned.filter(({ reasons }) => reasons.length > 0).map(({ seq }) => seq);
}

function linesOf(machines: readonly MeasuredMachine[], { output }: CommandContext): readonly string[] {
  const number = (title: string, spare = 0) => ({ title, align: 'right' as const, spare });
  const columns = [
    { title: 'machine', cut: true },
    number('points', 2),
    number('newest'),
    number('history'),
    number('not needed'),
    number('overhead', 1),
    number('a prune frees'),
    number('in sparse segments', 3),
  ];
  const rows = machines.map(({ machine, points, space }) => [
    machine,
    String(points),
    formatBytes(space.liveBytes),
    formatBytes(space.historyBytes),
    formatBytes(space.unneededBytes),
    formatBytes(space.overheadBytes),
    formatBytes(space.freedByPruneBytes),
    formatBytes(space.compactableBytes),
  ]);
  const objects = machines.reduce((sum, { space }) => sum + space.objects, 0);
  return [...formatTable(columns, rows, output.columns), output.colours.dim(`in ${plural(objects, 'object')}`)];
}
