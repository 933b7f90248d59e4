import { connectKvm } from '../../hypervisors/kvm/kvm-connection.ts';
import type { KvmMachine } from '../../hypervisors/kvm/kvm-machine.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import { formatBytes } from '../quantities.ts';
import { type Checked, good } from './finding.ts';

/** Asks QEMU about the machine, and leaves it as it is. Returns the size of its disks. */
export async function checkKvmMachine(
  kvm: KvmMachine,
  _machine: MachineConfig,
  signal: AbortSignal,
): Promise<Checked<number>> {
  await using connection = connectKvm([kvm]);
  for await (const { disks } of connection.listMachines(signal)) {
    const sizes = disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`).join(', ');
    return { verdict: good(sizes), value: disks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0) };
  }
  return { verdict: good('no disks'), value: 0 };
}
