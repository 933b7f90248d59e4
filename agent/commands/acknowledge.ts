import type { Command } from 'commander';
import { plural } from '../quantities.ts';
import { MachineState } from '../state/machine-state.ts';
import { chooseMachines } from './choose-machines.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit acknowledge`: a person has seen the alarms of machines. Flags of points stay. */
export function register(program: Command, run: RunCommand): void {
  program
    .command('acknowledge')
    .description('say that a person has seen the alarms of machines: status no longer asks for attention to them')
    .argument('<machines...>', 'names from the configuration')
    .action((names: string[], _options: unknown, command: Command) =>
      run(command, (context) => acknowledgeAll(names, context)),
    );
}

function acknowledgeAll(names: readonly string[], context: CommandContext): CommandAnswer {
  const { state } = context.config();
  const machines = chooseMachines(context.config(), names).map(({ name }) => ({
    machine: name,
    alarms: acknowledgeOne(state, name),
  }));
  return {
    document: { machines },
    lines: machines.map(({ machine, alarms }) =>
      alarms === 0 ? `${machine}: no alarm to acknowledge` : `${machine}: ${plural(alarms, 'alarm')} acknowledged`,
    ),
  };
}

/** How many there were. A machine that this host never protected gets no state by this. */
function acknowledgeOne(folder: string, machine: string): number {
  const known = MachineState.look(folder, machine, ({ trackRecord }) => trackRecord);
  if (known === null) return 0;
  using state = new MachineState(folder, machine);
  const open = state.trackRecord.alarms.filter(({ acknowledged }) => !acknowledged);
  state.acknowledgeAlarms();
  return open.length;
}
