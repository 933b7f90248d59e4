import { SourceNotFound } from '../errors.ts';
import type { HypervisorConnection } from '../hypervisor.ts';
import type { KvmMachine, QmpControl } from './kvm-machine.ts';
import { measureByQmp, snapshotByQmp } from './snapshot-by-qmp.ts';

/** The `kvm` source: machines of QEMU that run. */
export function connectKvm(machines: readonly KvmMachine[]): HypervisorConnection {
  const find = (name: string): KvmMachine => {
    const found = machines.find((machine) => machine.name === name);
    if (found !== undefined) return found;
    throw new SourceNotFound(`machine ${name} is not configured as a machine of QEMU: add it to the configuration`);
  };
  return {
    async *listMachines(signal) {
      for (const machine of machines) {
        signal.throwIfAborted();
        yield { name: machine.name, disks: await measureByQmp(machine, qmpOf(machine), signal) };
      }
    },
    async snapshot({ name }, options, signal) {
      const machine = find(name);
      return await snapshotByQmp(machine, qmpOf(machine), options, signal);
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function qmpOf({ name, control }: KvmMachine): QmpControl {
  if (control.kind === 'qmp') return control;
  throw new SourceNotFound(`machine ${name}: libvirt`);
}
