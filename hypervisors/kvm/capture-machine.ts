import { readFile, stat } from 'node:fs/promises';
import * as z from 'zod';
import type { Attachment } from '../hypervisor.ts';
import { deviceProperty } from './device-properties.ts';
import { nvramName } from './libvirt/capture-definition.ts';
import { type Firmware, listFirmware, parse, type QemuDisk } from './qemu-disks.ts';
import { encodeMachine, type QemuMachine, qemuMachineName } from './qemu-machine.ts';
import type { QmpClient } from './qmp-client.ts';

/** What besides its disks makes a machine of plain QEMU, as far as its monitor tells: its shape, and the UEFI variables. No secret is among it. */

const target = z.object({ arch: z.string() });
const memory = z.object({ 'base-memory': z.number(), 'plugged-memory': z.number().prefault(0) });
const cpus = z.array(z.unknown());
const attachmentBytesMax = 16 * 1024 * 1024;
const readAttemptsMax = 5;

export async function captureMachine(
  qmp: QmpClient,
  disks: readonly QemuDisk[],
  signal: AbortSignal,
): Promise<readonly Attachment[]> {
  const firmware = await listFirmware(qmp, signal);
  const machine = await describeMachine(qmp, disks, firmware, signal);
  const captured: Attachment[] = [{ name: qemuMachineName, bytes: encodeMachine(machine) }];
  const variables = firmware.find(({ readOnly }) => !readOnly);
  const bytes = variables === undefined ? null : await readTwice(variables);
  if (bytes !== null) captured.push({ name: nvramName, bytes });
  return captured;
}

async function describeMachine(
  qmp: QmpClient,
  disks: readonly QemuDisk[],
  firmware: readonly Firmware[],
  signal: AbortSignal,
): Promise<QemuMachine> {
  const ask = async <T>(schema: z.ZodType<T>, command: string): Promise<T> =>
    parse(schema, await qmp.run(command, {}, signal), command);
  const type = await deviceProperty(qmp, '/machine', 'type', signal);
  const sizes = await ask(memory, 'query-memory-size-summary');
  const buses: Record<string, string> = {};
  for (const { label, devicePath } of disks)
    buses[label] = busOf((await deviceProperty(qmp, devicePath, 'type', signal)) ?? '');
  return {
    machineType: type?.replace(/-machine$/, '') ?? null,
    architecture: (await ask(target, 'query-target')).arch,
    memoryMiB: Math.max(1, Math.round((sizes['base-memory'] + sizes['plugged-memory']) / 2 ** 20)),
    processors: Math.max(1, (await ask(cpus, 'query-cpus-fast')).length),
    loader: firmware.find(({ readOnly }) => readOnly)?.file ?? null,
    buses,
  };
}

/** In libvirt's words. */
function busOf(deviceType: string): string {
  if (deviceType.startsWith('scsi-')) return 'scsi';
  if (deviceType.startsWith('ide-')) return 'sata';
  return deviceType.startsWith('usb-') ? 'usb' : 'virtio';
}

/** A machine that runs may write them meanwhile: whole is what was read twice alike. Null where that can't be had. */
async function readTwice({ file, format }: Firmware): Promise<Uint8Array | null> {
  // What QEMU keeps in another format than the firmware's own is nothing to start a machine from.
  const info = format === 'raw' ? await stat(file).catch(() => null) : null;
  if (info === null || !info.isFile() || info.size > attachmentBytesMax) return null;
  let before = new Uint8Array();
  for (let attempt = 0; attempt < readAttemptsMax; attempt++) {
    const bytes = await readFile(file).catch(() => null);
    if (bytes === null) return null;
    if (bytes.equals(before)) return before;
    before = new Uint8Array(bytes);
  }
  return null;
}
