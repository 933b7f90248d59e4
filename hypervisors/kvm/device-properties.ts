import * as z from 'zod';
import { QmpRefused } from './kvm-errors.ts';
import { parse, type QemuDisk } from './qemu-disks.ts';
import type { QmpClient } from './qmp-client.ts';

const threads = z.array(z.object({ id: z.string() }));

/**
 * Labels of the disks that have a thread of their own. An NBD client that leaves such a disk ends some releases of QEMU (7.2 among them:
 * `nbd_blockdev_client_closed: Assertion qemu_in_main_thread()`), so that those are not read over QEMU's NBD server.
 */
export async function disksWithThreads(
  qmp: QmpClient,
  disks: readonly QemuDisk[],
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  if (parse(threads, await qmp.run('query-iothreads', {}, signal), 'query-iothreads').length === 0) return new Set();
  const found = new Set<string>();
  for (const { label, devicePath } of disks) if (await mayHaveThread(qmp, devicePath, signal)) found.add(label);
  return found;
}

/** A SCSI disk has its controller's. What can't be found out counts as yes: that way is safe for all. */
async function mayHaveThread(qmp: QmpClient, devicePath: string, signal: AbortSignal): Promise<boolean> {
  const own = await deviceProperty(qmp, devicePath, 'iothread', signal);
  if (own !== null) return own !== '';
  const bus = await deviceProperty(qmp, devicePath, 'parent_bus', signal);
  if (bus === null) return true;
  const controllers = await deviceProperty(qmp, bus.replace(/\/[^/]*$/, ''), 'iothread', signal);
  return controllers !== '';
}

/** Labels of the disks that others may write, too, behind QEMU's back: nobody could say what changed, nor take one instant of it. */
export async function sharedDisks(
  qmp: QmpClient,
  disks: readonly QemuDisk[],
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  for (const { label, devicePath } of disks)
    if ((await deviceProperty(qmp, devicePath, 'share-rw', signal)) === 'true') found.add(label);
  return found;
}

/** Null where the object has none of that name. */
export async function deviceProperty(
  qmp: QmpClient,
  path: string,
  name: string,
  signal: AbortSignal,
): Promise<string | null> {
  try {
    return String(await qmp.run('qom-get', { path, property: name }, signal));
  } catch (error) {
    if (error instanceof QmpRefused) return null;
    throw error;
  }
}
