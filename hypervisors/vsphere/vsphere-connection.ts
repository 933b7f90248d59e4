import { SourceNotFound } from '../errors.ts';
import type { HypervisorConnection } from '../hypervisor.ts';
import { readMachine } from './machine-state.ts';
import { snapshotByVsphere } from './snapshot-by-vsphere.ts';
import type { VimSession } from './vim25/vim-session.ts';
import { openVimSession, type VsphereMachine, type VsphereServer } from './vsphere-machine.ts';
import { chooseDisks, enterSite } from './vsphere-site.ts';

/** The `vsphere` source: machines of vCenters and ESXi hosts. One login for each server, however many machines. */
export function connectVsphere(machines: readonly VsphereMachine[]): HypervisorConnection {
  const sessions = new Map<string, VimSession>();
  const sessionOf = (server: VsphereServer): VimSession => {
    const session = sessions.get(server.name) ?? openVimSession(server);
    sessions.set(server.name, session);
    return session;
  };
  return {
    async *listMachines(signal) {
      for (const machine of machines) {
        signal.throwIfAborted();
        const session = sessionOf(machine.server);
        const { ref } = await enterSite(session, machine, signal);
        const { disks } = await readMachine(session, ref, signal);
        yield { name: machine.name, disks: chooseDisks(machine, disks).chosen };
      }
    },
    async snapshot({ name }, options, signal) {
      const machine = machines.find((each) => each.name === name);
      if (machine === undefined)
        throw new SourceNotFound(
          `machine ${name} is not configured as a machine of vSphere: add it to the configuration`,
        );
      return await snapshotByVsphere(sessionOf(machine.server), machine, options, signal);
    },
    async [Symbol.asyncDispose]() {
      for (const session of sessions.values()) await session[Symbol.asyncDispose]();
    },
  };
}
