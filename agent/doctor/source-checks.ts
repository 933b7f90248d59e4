import { stat } from 'node:fs/promises';
import type { HypervHosts } from '../../hypervisors/hyperv/hyperv-hosts.ts';
import type { BlockSource } from '../../hypervisors/hypervisor.ts';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';
import type { Config, ImageSourceConfig, MachineConfig } from '../config/config-schema.ts';
import { formatBytes, formatDuration } from '../quantities.ts';
import { connectSource, hypervMachine, kvmMachine, vsphereMachine } from '../wire.ts';
import { type Checked, doubtful, good } from './finding.ts';
import { checkHypervMachine } from './hyperv-checks.ts';
import { formatOf, isRaw } from './image-format.ts';
import { checkKvmMachine } from './kvm-checks.ts';
import { checkVsphereMachine } from './vsphere-checks.ts';

const sampleBytes = 64 * 1024;
const latelyMs = 60_000;

/**
 * Opens the machine as a run does, reads both ends of each disk, and asks whether anything changed meanwhile. Returns the size of its
 * disks. No source that there is freezes a guest for this.
 */
export async function checkMachine(
  config: Config,
  machine: MachineConfig,
  hosts: HypervHosts,
  signal: AbortSignal,
): Promise<Checked<number>> {
  const { verdict, value } = await checkSource(config, machine, hosts, signal);
  if (verdict.outcome !== 'ok' || !trustsBlindly(machine)) return { verdict, value };
  return {
    verdict: doubtful(`${verdict.what}; its change tracking is never checked`, 'set spotCheck.everyDays: 30'),
    value,
  };
}

async function checkSource(
  config: Config,
  machine: MachineConfig,
  hosts: HypervHosts,
  signal: AbortSignal,
): Promise<Checked<number>> {
  const { name, source } = machine;
  switch (source.type) {
    case 'image':
      return await checkImages(config, machine, source, hosts, signal);
    case 'kvm':
      return await checkKvmMachine(kvmMachine(config, name, source), machine, signal);
    case 'vsphere':
      return await checkVsphereMachine(vsphereMachine(config, name, source), signal);
    case 'hyperv':
      return await checkHypervMachine(hosts, hypervMachine(config, name, source), signal);
  }
}

async function checkImages(
  config: Config,
  machine: MachineConfig,
  source: ImageSourceConfig,
  hosts: HypervHosts,
  signal: AbortSignal,
): Promise<Checked<number>> {
  await using connection = connectSource(config, withoutTracking(machine, source), new Bandwidth(null), hosts);
  const options = { quiesce: machine.quiesce, whenChanging: machine.whenChanging };
  await using snapshot = await connection.snapshot({ name: machine.name }, options, signal);
  const misread: string[] = [];
  for (const disk of snapshot.disks) {
    const format = formatOf(await readBothEnds(disk, signal));
    const raw = source.disks.some((each) => each.label === disk.label && isRaw(each));
    if (format !== null && raw)
      misread.push(`${disk.label} begins as a ${format} image does, and is taken for raw bytes`);
  }
  const value = snapshot.disks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0);
  const disks = snapshot.disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`).join(', ');
  const changing = (await snapshot.settleConsistency(signal)) === 'inconsistent';
  const written = changing ? 'changes just now' : await writtenLately(source);
  if (misread.length > 0)
    return { verdict: doubtful(misread.join('; '), 'set format of that disk to what it is: qcow2, vmdk, …'), value };
  const verdict =
    written === null
      ? good(`${disks}: can be read, not in use`)
      : doubtful(`${disks}: ${written}: is it in use?`, 'protect it while it is off or from a storage snapshot');
  return { verdict, value };
}

function trustsBlindly({ source, spotCheck }: MachineConfig): boolean {
  const tracks = source.type !== 'image' || source.disks.some((disk) => 'path' in disk && disk.tracking === 'bitmap');
  return tracks && spotCheck.everyMs === 0;
}

/** A guest that writes now and then is not caught in the moment that this takes. */
async function writtenLately(source: ImageSourceConfig): Promise<string | null> {
  for (const disk of source.disks) {
    if (!('path' in disk)) continue;
    const { mtimeMs } = await stat(disk.path);
    const ageMs = Math.abs(Date.now() - mtimeMs);
    if (ageMs < latelyMs) return `${disk.path} was written ${formatDuration(ageMs)} ago`;
  }
  return null;
}

/** Returns the first bytes. */
async function readBothEnds({ capacityBytes, read }: BlockSource, signal: AbortSignal): Promise<Uint8Array> {
  const sample = new Uint8Array(Math.min(sampleBytes, capacityBytes));
  await read(capacityBytes - sample.length, sample, signal);
  await read(0, sample, signal);
  return sample;
}

/** A look adds no bitmap to an image: only a run needs one. */
function withoutTracking(machine: MachineConfig, source: ImageSourceConfig): MachineConfig {
  const disks = source.disks.map((disk) => ('path' in disk ? { ...disk, tracking: 'none' as const } : disk));
  return { ...machine, source: { ...source, disks } };
}
