import { ConfigInvalid } from '../config/config-invalid.ts';
import type { Config, MachineConfig } from '../config/config-schema.ts';

/** The machines that the command line names, else all. Throws ConfigInvalid. */
export function chooseMachines(config: Config, names: readonly string[]): readonly MachineConfig[] {
  if (names.length === 0 && config.machines.length > 0) return config.machines;
  if (names.length === 0)
    throw new ConfigInvalid('configuration', [
      { line: null, key: 'machines', what: 'is empty: name the machines to protect' },
    ]);
  return names.map((name) => {
    const machine = config.machines.find((candidate) => candidate.name === name);
    if (machine !== undefined) return machine;
    const known = config.machines.map((candidate) => candidate.name).join(', ');
    throw new ConfigInvalid('configuration', [
      { line: null, key: 'machines', what: `has no machine ${name}; there is ${known || 'none'}` },
    ]);
  });
}
