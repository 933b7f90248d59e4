import { KeyRefused } from '../crypto/errors.ts';
import { ReplicaNotFound } from '../replica/chain.ts';
import { toHex } from '../replica/encoding.ts';
import { listMachineIds } from '../replica/open-repository.ts';
import { OpenReplica } from '../restore/open-point.ts';
import { exitCodes, remedyFor } from './remedy.ts';
import type { Session } from './session.ts';
import { StateBusy } from './state/errors.ts';
import { MachineState } from './state/machine-state.ts';

/** From a machine's name, which is encrypted in the bucket, to the id of its replica. */

const pointsTriedMax = 3;

/** Two replicas carry this name. */
export class MachineAmbiguous extends Error {
  readonly code = 'MACHINE_AMBIGUOUS';
  override readonly name = 'MachineAmbiguous';
}

export interface KnownReplica {
  readonly machineId: Uint8Array;
  /** Null where this host may not open its newest point, or where there is none. */
  readonly machineName: string | null;
}

/** `wanted`: a name, or an id of 32 hex digits. Asks the local state first, then opens each replica's newest point. */
export async function findMachine(session: Session, wanted: string, signal: AbortSignal): Promise<Uint8Array> {
  if (/^[0-9a-f]{32}$/.test(wanted)) return Uint8Array.from(Buffer.from(wanted, 'hex'));
  const local = localMachineId(session, wanted);
  if (local !== null) return local;
  const found: KnownReplica[] = [];
  for await (const replica of listReplicas(session, signal)) if (replica.machineName === wanted) found.push(replica);
  if (found.length > 1) {
    const ids = found.map(({ machineId }) => toHex(machineId)).join(', ');
    throw new MachineAmbiguous(`${found.length} replicas are named ${wanted}: give one of their ids instead: ${ids}`);
  }
  const [only] = found;
  if (only === undefined)
    throw new ReplicaNotFound(`${session.store.target.description} holds no replica of a machine named ${wanted}`);
  return only.machineId;
}

function localMachineId(session: Session, machineName: string): Uint8Array | null {
  if (!session.config.machines.some(({ name }) => name === machineName)) return null;
  try {
    using state = new MachineState(session.config.state, machineName);
    const ours =
      state.repositoryId !== null && Buffer.from(state.repositoryId).equals(session.repo.repository.repositoryId);
    return ours ? state.machineId : null;
  } catch (error) {
    // A run that is under way holds the state; the bucket knows the machine, too.
    if (error instanceof StateBusy) return null;
    throw error;
  }
}

/** Every replica of the repository, with the name in its newest point where it can be opened. */
export async function* listReplicas(session: Session, signal: AbortSignal): AsyncGenerator<KnownReplica> {
  for await (const machineId of listMachineIds(session.store.target, signal)) {
    yield { machineId, machineName: await nameOf(session, machineId, signal) };
  }
}

async function nameOf(session: Session, machineId: Uint8Array, signal: AbortSignal): Promise<string | null> {
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal, { salvage: true });
  return await machineNameOf(replica, signal);
}

/** The name in the newest recovery point that opens here; null where none of the newest few does. */
export async function machineNameOf(replica: OpenReplica, signal: AbortSignal): Promise<string | null> {
  for (const point of replica.points.slice(-pointsTriedMax).reverse()) {
    try {
      return (await replica.openPoint(point, signal)).manifest.machineName;
    } catch (error) {
      if (remedyFor(error)?.exitCode !== exitCodes.damage && !(error instanceof KeyRefused)) throw error;
    }
  }
  return null;
}
