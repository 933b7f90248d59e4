import { stat } from 'node:fs/promises';
import type { BlockSource } from '../../hypervisors/hypervisor.ts';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import { formatBytes, formatDuration } from '../quantities.ts';
import { connectSource } from '../wire.ts';
import { type Checked, doubtful, good } from './finding.ts';

const sampleBytes = 64 * 1024;
const latelyMs = 60_000;

/**
 * Opens the machine as a run does, reads both ends of each disk, and asks whether anything changed meanwhile. Returns the size of its
 * disks. No source that there is freezes a guest for this.
 */
export async function checkMachine(machine: MachineConfig, signal: AbortSignal): Promise<Checked<number>> {
  await using connection = connectSource(withoutTracking(machine), new Bandwidth(null));
  const options = { quiesce: machine.quiesce, whenChanging: machine.whenChanging };
  await using snapshot = await connection.snapshot({ name: machine.name }, options, signal);
  for (const disk of snapshot.disks) await readBothEnds(disk, signal);
  const value = snapshot.disks.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0);
  const disks = snapshot.disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`).join(', ');
  const changing = (await snapshot.settleConsistency(signal)) === 'inconsistent';
  const written = changing ? 'changes just now' : await writtenLately(machine);
  const verdict =
    written === null
      ? good(`${disks}: can be read, not in use`)
      : doubtful(`${disks}: ${written}: is it in use?`, 'protect it while it is off or from a storage snapshot');
  return { verdict, value };
}

/** A guest that writes now and then is not caught in the moment that this takes. */
async function writtenLately({ source }: MachineConfig): Promise<string | null> {
  for (const disk of source.disks) {
    if (!('path' in disk)) continue;
    const { mtimeMs } = await stat(disk.path);
    const ageMs = Math.abs(Date.now() - mtimeMs);
    if (ageMs < latelyMs) return `${disk.path} was written ${formatDuration(ageMs)} ago`;
  }
  return null;
}

async function readBothEnds({ capacityBytes, read }: BlockSource, signal: AbortSignal): Promise<void> {
  const sample = new Uint8Array(Math.min(sampleBytes, capacityBytes));
  for (const offset of new Set([0, capacityBytes - sample.length])) await read(offset, sample, signal);
}

/** A look adds no bitmap to an image: only a run needs one. */
function withoutTracking(machine: MachineConfig): MachineConfig {
  const disks = machine.source.disks.map((disk) => ('path' in disk ? { ...disk, tracking: 'none' as const } : disk));
  return { ...machine, source: { ...machine.source, disks } };
}
