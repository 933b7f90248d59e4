import { examineMachine } from '../../hypervisors/vsphere/examine-machine.ts';
import { examineServer } from '../../hypervisors/vsphere/examine-server.ts';
import { examineVddk } from '../../hypervisors/vsphere/vddk/vddk-host.ts';
import { openVimSession, type VsphereMachine, type VsphereServer } from '../../hypervisors/vsphere/vsphere-machine.ts';
import type { Config, MachineConfig, VsphereServerConfig } from '../config/config-schema.ts';
import { formatBytes, formatDuration } from '../quantities.ts';
import { exitCodes } from '../remedy.ts';
import { vsphereServer } from '../wire.ts';
import { attempt, attemptOnly, type Checked, doubtful, type Finding, good, skipped, type Verdict } from './finding.ts';
import { worstOf } from './machine-verdict.ts';

const clockDoubtMs = 60_000;
const certificateDoubtMs = 30 * 24 * 3600 * 1000;

/** The server, and what reads its disks. */
export async function* examineVsphere(
  config: Config,
  source: VsphereServerConfig,
  signal: AbortSignal,
): AsyncGenerator<Finding, void> {
  const server = vsphereServer(source);
  const reached = yield* attempt(
    `source ${source.name}`,
    signal,
    async (either) => ({ verdict: await checkServer(server, either), value: true }),
    exitCodes.source,
  );
  if (!config.machines.some((machine) => readsByVddk(machine, source.name))) return;
  if (reached === null) yield skipped(`vddk of ${source.name}`, `source ${source.name}`);
  else yield* attemptOnly(`vddk of ${source.name}`, signal, (either) => checkVddk(server, either), exitCodes.source);
}

function readsByVddk({ source }: MachineConfig, name: string): boolean {
  return source.type === 'vsphere' && source.from === name && source.reads === 'vddk';
}

async function checkServer(server: VsphereServer, signal: AbortSignal): Promise<Verdict> {
  await using session = openVimSession(server);
  const { product, apiVersion, thumbprint, certificateValidTo, clockAheadMs } = await examineServer(session, signal);
  const what = `${product}, API ${apiVersion}`;
  if (Math.abs(clockAheadMs) > clockDoubtMs) {
    const way = clockAheadMs > 0 ? 'ahead of' : 'behind';
    return doubtful(
      `${what}: its clock is ${formatDuration(Math.abs(clockAheadMs))} ${way} this host's`,
      'set both clocks by NTP',
    );
  }
  if (certificateValidTo.getTime() - Date.now() < certificateDoubtMs)
    return doubtful(
      `${what}: its certificate ends on ${certificateValidTo.toISOString().slice(0, 10)}`,
      'renew it, and the thumbprint in the configuration with it',
    );
  const trusted = server.trust.thumbprint === null ? `certificate ${thumbprint}` : 'the pinned certificate';
  return good(`${what}, ${trusted}`);
}

async function checkVddk({ vddk }: VsphereServer, signal: AbortSignal): Promise<Verdict> {
  const { nbdkitVersion, library, transports, tellsAllocated } = await examineVddk(vddk, signal);
  const what = `nbdkit ${nbdkitVersion}, ${library}, transports ${transports.join(', ')}`;
  return tellsAllocated
    ? good(what)
    : doubtful(`${what}: it can't tell what was ever written, so that a seed reads everything`, 'use a newer VDDK');
}

/** Asks vSphere about the machine, and leaves it as it is. Returns the size of its disks. */
export async function checkVsphereMachine(machine: VsphereMachine, signal: AbortSignal): Promise<Checked<number>> {
  await using session = openVimSession(machine.server);
  const { findings, disks } = await examineMachine(session, machine, signal);
  const sizes = disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`);
  const fine = findings.filter(({ level, disk }) => level === 'ok' && disk === null).map(({ what }) => what);
  const value = disks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0);
  return { verdict: worstOf(findings) ?? good([...sizes, ...fine].join(', ')), value };
}
