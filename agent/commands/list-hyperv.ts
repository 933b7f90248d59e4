import { askMachines, type HypervState } from '../../hypervisors/hyperv/hyperv-calls.ts';
import { HypervHosts } from '../../hypervisors/hyperv/hyperv-hosts.ts';
import { diskRefusal, isRunning, snapshotNames, tracksChanges, whyBusy } from '../../hypervisors/hyperv/hyperv-site.ts';
import type { Config, HypervHostConfig } from '../config/config-schema.ts';
import { hypervHost } from '../wire.ts';
import type { ListedMachine } from './machines.ts';

/** What a Hyper-V host has; of a cluster, what this node has. */
export async function listHyperv(
  config: Config,
  source: HypervHostConfig,
  signal: AbortSignal,
): Promise<readonly ListedMachine[]> {
  await using hosts = new HypervHosts();
  const { client } = await hosts.open(hypervHost(source), signal);
  const machines = await askMachines(client, signal);
  return machines.map((machine) => listed(config, source, machine));
}

function listed({ machines }: Config, { name: source }: HypervHostConfig, state: HypervState): ListedMachine {
  const { id, name, owner, node, tpm } = state;
  const found = machines.find(
    ({ source: from }) => from.type === 'hyperv' && from.from === source && from.vm === id.toLowerCase(),
  );
  const refusal = owner !== null && owner.toLowerCase() !== node.toLowerCase() ? `it runs on ${owner}` : whyBusy(state);
  const tracking = tracksChanges(state) ? 'on' : 'impossible';
  const disks = state.disks.map((disk) => ({
    ...{ label: disk.label, capacityBytes: disk.capacityBytes, file: disk.path, refusal: diskRefusal(disk) },
  }));
  return {
    ...{ path: name, pool: null, tags: null, id, power: isRunning(state) ? 'on' : 'off', tracking, tpm, refusal },
    ...{ protectedAs: found?.name ?? null, disks },
    document: documentOf(source, found?.name ?? null, { ...state, refusal, tracking, disks }),
  };
}

function documentOf(
  source: string,
  protectedAs: string | null,
  state: Omit<HypervState, 'disks'> & { readonly refusal: string | null; tracking: string; disks: readonly object[] },
): object {
  const { id, name, version, generation, owner, secureBoot, tpm, quiesces, refusal, tracking, disks } = state;
  const snapshots = snapshotNames(state);
  return {
    ...{ source, name, vm: id, protectedAs, version, generation, owner, tracking, secureBoot, hasTpm: tpm, quiesces },
    ...{ snapshots, refusal, disks },
  };
}
