import { SourceNotFound } from '../errors.ts';
import type { HypervisorConnection, Machine } from '../hypervisor.ts';
import type { KvmMachine } from './kvm-machine.ts';
import { measureByLibvirt, snapshotByLibvirt } from './libvirt/snapshot-by-libvirt.ts';
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
        yield { name: machine.name, disks: await measure(machine, signal) };
      }
    },
    async snapshot({ name }, options, signal) {
      const machine = find(name);
      const { control } = machine;
      return control.kind === 'qmp'
        ? await snapshotByQmp(machine, control, options, signal)
        : await snapshotByLibvirt(machine, control, options, signal);
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

async function measure(machine: KvmMachine, signal: AbortSignal): Promise<Machine['disks']> {
  const { control } = machine;
  return control.kind === 'qmp'
    ? await measureByQmp(machine, control, signal)
    : await measureByLibvirt(machine, control, signal);
}
