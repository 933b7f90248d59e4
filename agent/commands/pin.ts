import { type Command, InvalidArgumentError } from 'commander';
import { ReplicaNotFound } from '../../replica/chain.ts';
import { toHex } from '../../replica/encoding.ts';
import { pinRetained } from '../../replica/pin-retained.ts';
import { isHolding, pinHoursMax, readPins } from '../../replica/pins.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { findPoint, lockedMsOf } from '../choose-point.ts';
import { findMachine } from '../find-machine.ts';
import { minuteText, parseDuration, plural } from '../quantities.ts';
import { openSession } from '../session.ts';
import { formatTable } from '../table.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit pin`: hold recovery points, whatever retention says. */

interface AddFlags {
  readonly point?: string;
  readonly for?: number;
}

const hourMs = 3_600_000;

export function register(program: Command, run: RunCommand): void {
  const pin = program.command('pin').description('hold recovery points: neither prune nor sweep touches them');
  pin
    .command('add')
    .description('hold a point')
    .argument('<machine>', 'name or id')
    .option('--point <point>', 'number, a time, or latest (default: latest)')
    .option('--for <duration>', 'such as 30d (default: until it is removed)', hours)
    .action((machine: string, flags: AddFlags, command: Command) =>
      run(command, (context) => addPin(machine, flags, context)),
    );
  pin
    .command('remove')
    .description('hold a point no longer')
    .argument('<machine>', 'name or id')
    .argument('<point>', 'its number')
    .action((machine: string, point: string, _options: unknown, command: Command) =>
      run(command, (context) => removePins(machine, point, context)),
    );
  pin
    .command('list')
    .description('show which points are held')
    .argument('<machine>', 'name or id')
    .action((machine: string, _options: unknown, command: Command) =>
      run(command, (context) => showPins(machine, context)),
    );
}

function hours(typed: string): number {
  const durationMs = parseDuration(typed);
  const rounded = durationMs === null ? 0 : Math.ceil(durationMs / hourMs);
  if (rounded >= 1 && rounded <= pinHoursMax) return rounded;
  throw new InvalidArgumentError('give a duration such as 12h or 30d');
}

async function addPin(machine: string, flags: AddFlags, context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  await using session = await openSession(context);
  const machineId = await findMachine(session, machine, signal);
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal);
  const point = await findPoint(replica, flags.point, session.config, signal);
  if (!replica.points.includes(point)) throw new ReplicaNotFound(`machine ${machine} has no recovery point ${point}`);
  const held = flags.for ?? 0;
  const kept = { hours: held, lockedMs: lockedMsOf(session.config) };
  await pinRetained(session.repo, machineId, point, kept, signal);
  const until = held === 0 ? 'until it is removed' : `for ${plural(held, 'hour')}`;
  return {
    document: { machineId: toHex(machineId), point, hours: held },
    lines: [`point ${point} of ${machine} is held ${until}`],
  };
}

async function removePins(machine: string, point: string, context: CommandContext): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const machineId = await findMachine(session, machine, context.signal);
  const pins = await readPins(session.store.target, machineId, context.signal);
  const names = pins.filter((pin) => String(pin.point) === point).map(({ name }) => name);
  await session.store.target.delete(names, context.signal);
  return {
    document: { machineId: toHex(machineId), point: Number(point), removed: names.length },
    lines: [
      names.length === 0
        ? `nobody held point ${point} of ${machine}`
        : `point ${point} of ${machine} is held no longer`,
    ],
  };
}

async function showPins(machine: string, context: CommandContext): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const machineId = await findMachine(session, machine, context.signal);
  const nowMs = (await session.store.target.now(context.signal)).getTime();
  const pins = (await readPins(session.store.target, machineId, context.signal)).filter((pin) => isHolding(pin, nowMs));
  const rows = pins.map(({ point, hours: held, modifiedMs }) => [
    String(point),
    minuteText(modifiedMs),
    untilOf(held, modifiedMs),
  ]);
  const columns = [{ title: 'point', align: 'right' as const }, { title: 'held since' }, { title: 'until' }];
  return {
    document: {
      machineId: toHex(machineId),
      pins: pins.map(({ point, hours: held, modifiedMs }) => ({
        point,
        since: new Date(modifiedMs).toISOString(),
        until: held === 0 ? null : new Date(modifiedMs + held * hourMs).toISOString(),
      })),
    },
    lines: pins.length === 0 ? [`no point of ${machine} is held`] : formatTable(columns, rows, context.output.columns),
  };
}

function untilOf(held: number, sinceMs: number): string {
  return held === 0 ? 'it is removed' : minuteText(sinceMs + held * hourMs);
}
