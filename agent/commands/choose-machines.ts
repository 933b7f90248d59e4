import { ConfigInvalid } from '../config/config-invalid.ts';
import type { Config, MachineConfig } from '../config/config-schema.ts';
import { nearestKey } from '../config/nearest-key.ts';

/** The command line names a machine that is not in the configuration. */
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
    throw new MachineUnknown(`the configuration has no machine ${name}${insteadOf(name, config)}`);
  });
}

const namesShownMax = 8;

function insteadOf(name: string, { machines }: Config): string {
  const names = machines.map((machine) => machine.name);
  const meant = nearestKey(name, names);
  if (meant !== null) return `: did you mean ${meant}?`;
  const more = names.length > namesShownMax ? `, and ${names.length - namesShownMax} more` : '';
  return `; there is ${names.slice(0, namesShownMax).join(', ') || 'none'}${more}`;
}
