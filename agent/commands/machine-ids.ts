import { listMachineIds } from '../../replica/open-repository.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import type { KeylessSession } from '../session.ts';
import { MachineState } from '../state/machine-state.ts';

/** Ids of the machines that a command without keys names: names are encrypted in the bucket. None: every machine in the repository. */
export async function* idsOf(
  command: string,
  names: readonly string[],
  { store, config }: KeylessSession,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (names.length === 0) yield* listMachineIds(store.target, signal);
  for (const name of names) yield idOf(command, name, config.state);
}

function idOf(command: string, name: string, stateFolder: string): Uint8Array {
  if (/^[0-9a-f]{32}$/.test(name)) return Uint8Array.from(Buffer.from(name, 'hex'));
  const known = MachineState.look(stateFolder, name, ({ machineId }) => machineId);
  if (known !== null) return known;
  throw new ConfigInvalid(command, [
    { line: null, key: '', what: `this host does not know the id of ${name}: give it as failkit points prints it` },
  ]);
}
