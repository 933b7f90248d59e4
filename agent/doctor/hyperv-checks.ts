import { examineMachine } from '../../hypervisors/hyperv/examine-hyperv.ts';
import { askHost } from '../../hypervisors/hyperv/hyperv-calls.ts';
import type { HypervHosts } from '../../hypervisors/hyperv/hyperv-hosts.ts';
import { type HypervHost, type HypervMachine, usualPace } from '../../hypervisors/hyperv/hyperv-machine.ts';
import { formatBytes } from '../quantities.ts';
import { type Checked, doubtful, good, type Verdict } from './finding.ts';
import { worstOf } from './machine-verdict.ts';

/** Starts the worker, and asks who it is. */
export async function checkHypervHost(hosts: HypervHosts, host: HypervHost, signal: AbortSignal): Promise<Verdict> {
  const { client } = await hosts.open(host, signal);
  const { host: name, system, powershell, administersHyperv, elevated, cluster } = await askHost(client, signal);
  const what = `${name}, ${system}, PowerShell ${powershell}${cluster === null ? '' : `, of cluster ${cluster}`}`;
  if (administersHyperv && elevated) return good(what);
  return {
    ...doubtful(
      `${what}: the account ${administersHyperv ? 'is not elevated' : 'may not administer Hyper-V'}`,
      'run the agent as a service (LocalSystem), or as an elevated member of Hyper-V Administrators',
    ),
    outcome: 'failed',
  };
}

/** Asks Hyper-V about the machine, and leaves it as it is. Returns the size of its disks. */
export async function checkHypervMachine(
  hosts: HypervHosts,
  machine: HypervMachine,
  signal: AbortSignal,
): Promise<Checked<number>> {
  const { findings, disks } = await examineMachine(await hosts.site(machine, usualPace, signal), signal);
  const sizes = disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`);
  const fine = findings.filter(({ level, disk }) => level === 'ok' && disk === null).map(({ what }) => what);
  const value = disks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0);
  return { verdict: worstOf(findings) ?? good([...sizes, ...fine].join(', ')), value };
}
