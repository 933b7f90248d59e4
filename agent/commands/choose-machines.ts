import { ConfigInvalid } from '../config/config-invalid.ts';
import type { Config, MachineConfig } from '../config/config-schema.ts';
import { nearestKey } from '../config/nearest-key.ts';

/** The command line names a machine, or a group, that is not in the configuration. */
export class MachineUnknown extends Error {
  readonly code = 'MACHINE_UNKNOWN';
  override readonly name = 'MachineUnknown';
}

/** The machines that the command line names, else all. Throws MachineUnknown or ConfigInvalid. */
export function chooseMachines(config: Config, names: readonly string[]): readonly MachineConfig[] {
  if (names.length === 0 && config.machines.length > 0) return config.machines;
  if (names.length === 0)
    throw new ConfigInvalid('configuration', [
      { line: null, key: 'machines', what: 'is empty: name the machines to protect' },
    ]);
  return names.map((name) => {
    const machine = config.machines.find((candidate) => candidate.name === name);
    if (machine !== undefined) return machine;
    throw new MachineUnknown(`the configuration has no machine ${name}${insteadOf(name, namesOf(config.machines))}`);
  });
}

/** The machines of a group, or those of them that the command line names. Throws MachineUnknown. */
export function machinesOfGroup(config: Config, name: string, names: readonly string[]): readonly MachineConfig[] {
  if (!config.groups.some((group) => group.name === name))
    throw new MachineUnknown(`the configuration has no group ${name}${insteadOf(name, namesOf(config.groups))}`);
  const stranger = chooseMachines(config, names).find((machine) => names.length > 0 && machine.group !== name);
  if (stranger !== undefined) throw new MachineUnknown(`machine ${stranger.name} is not in group ${name}`);
  return config.machines.filter(
    (machine) => machine.group === name && (names.length === 0 || names.includes(machine.name)),
  );
}

const namesOf = (list: readonly { readonly name: string }[]): readonly string[] => list.map(({ name }) => name);

const namesShownMax = 8;

function insteadOf(name: string, names: readonly string[]): string {
  const meant = nearestKey(name, names);
  if (meant !== null) return `: did you mean ${meant}?`;
  const more = names.length > namesShownMax ? `, and ${names.length - namesShownMax} more` : '';
  return `; there is ${names.slice(0, namesShownMax).join(', ') || 'none'}${more}`;
}
