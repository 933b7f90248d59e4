import { examineQmp } from '../../hypervisors/kvm/examine-qmp.ts';
import { connectKvm } from '../../hypervisors/kvm/kvm-connection.ts';
import type { KvmMachine } from '../../hypervisors/kvm/kvm-machine.ts';
import { examineLibvirt } from '../../hypervisors/kvm/libvirt/examine-libvirt.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import { formatBytes } from '../quantities.ts';
import { type Checked, good } from './finding.ts';
import { worstOf } from './machine-verdict.ts';

/** Asks QEMU or libvirt about the machine, and leaves it as it is. Returns the size of its disks. */
export async function checkKvmMachine(
  kvm: KvmMachine,
  _machine: MachineConfig,
  signal: AbortSignal,
): Promise<Checked<number>> {
  const { control } = kvm;
  const findings =
    control.kind === 'libvirt' ? await examineLibvirt(kvm, control, signal) : await examineQmp(kvm, control, signal);
  const trouble = worstOf(findings);
  if (trouble?.outcome === 'failed') return { verdict: trouble, value: 0 };
  await using connection = connectKvm([kvm]);
  for await (const { disks } of connection.listMachines(signal)) {
    const sizes = disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`);
    const fine = findings.filter(({ level, disk }) => level === 'ok' && disk === null).map(({ what }) => what);
    const verdict = trouble ?? good([...sizes, ...fine].join(', '));
    return { verdict, value: disks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0) };
  }
  return { verdict: good('no disks'), value: 0 };
}
