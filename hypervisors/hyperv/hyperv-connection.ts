import { SourceNotFound } from '../errors.ts';
import type { HypervisorConnection } from '../hypervisor.ts';
import { askMachine } from './hyperv-calls.ts';
import type { HypervHosts } from './hyperv-hosts.ts';
import { type HypervMachine, type HypervPace, usualPace } from './hyperv-machine.ts';
import { chooseDisks } from './hyperv-site.ts';
import { snapshotByHyperv } from './snapshot-by-hyperv.ts';

/** The `hyperv` source: machines of Hyper-V hosts, which are the caller's and stay open for other machines of theirs. */
export function connectHyperv(
  machines: readonly HypervMachine[],
  hosts: HypervHosts,
  pace: HypervPace = usualPace,
): HypervisorConnection {
  return {
    async *listMachines(signal) {
      for (const machine of machines) {
        const { client } = await hosts.open(machine.host, signal);
        const { chosen } = chooseDisks(machine, (await askMachine(client, machine.vm, signal, true)).disks);
        const disks = chosen.map(({ label, capacityBytes }) => ({ label, capacityBytes: capacityBytes ?? 0 }));
        yield { name: machine.name, disks };
      }
    },
    async snapshot({ name }, options, signal) {
      signal.throwIfAborted();
      const machine = machines.find((each) => each.name === name);
      if (machine === undefined)
        throw new SourceNotFound(
          `machine ${name} is not configured as a machine of Hyper-V: add it to the configuration`,
        );
      return await snapshotByHyperv(await hosts.site(machine, pace, signal), options, signal);
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}
