import type { KeyProvider } from '../../crypto/key-provider.ts';
import { toHex } from '../../replica/encoding.ts';
import { listMachineIds } from '../../replica/open-repository.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { findMachine } from '../find-machine.ts';
import type { Session } from '../session.ts';
import { MachineState } from '../state/machine-state.ts';

/** A machine whose key records are looked at or written anew. */
export interface KeyedMachine {
  /** Its name where it was given or this host knows it, else its id. */
  readonly name: string;
  readonly machineId: Uint8Array;
}

/** Those that are named, else every machine of the repository. Nobody is asked for a key unless a name needs one. */
export async function* keyedMachines(
  session: Session,
  names: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<KeyedMachine> {
  for (const name of names) yield { name, machineId: await findMachine(session, name, signal) };
  if (names.length > 0) return;
  const known = localNames(session);
  for await (const machineId of listMachineIds(session.store.target, signal))
    yield { name: known.get(toHex(machineId)) ?? toHex(machineId), machineId };
}

/** The machine's epochs, ascending, and the ring that opens them with these keys. */
export async function openEpochs(
  session: Session,
  { machineId }: KeyedMachine,
  openers: readonly KeyProvider[],
  signal: AbortSignal,
): Promise<{ readonly replica: OpenReplica; readonly epochs: readonly number[] }> {
  const replica = await OpenReplica.open(session.repo, machineId, openers, signal);
  return { replica, epochs: [...replica.chain.state.epochs.keys()] };
}

/** Ids of this repository's machines, as hex digits, with the names that this host's states have for them. */
function localNames({ config, repo }: Session): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const { name } of config.machines) {
    const id = MachineState.look(config.state, name, ({ machineId, repositoryId }) =>
      repositoryId !== null && toHex(repositoryId) === toHex(repo.repository.repositoryId) ? machineId : null,
    );
    if (id !== null) names.set(toHex(id), name);
  }
  return names;
}
