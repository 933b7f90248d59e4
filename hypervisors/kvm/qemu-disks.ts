import * as z from 'zod';
import { QmpLost } from './kvm-errors.ts';
import type { QmpClient } from './qmp-client.ts';

/** The disks that a QEMU shows its guest, as its monitor describes them. */

const dirtyBitmap = z.object({
  /** An anonymous one belongs to a job. */
  name: z.string().optional(),
  recording: z.boolean(),
  busy: z.boolean(),
  persistent: z.boolean(),
  inconsistent: z.boolean().optional(),
});

const image = z.object({
  filename: z.string(),
  'virtual-size': z.int().nonnegative(),
  snapshots: z.array(z.unknown()).prefault([]),
  'format-specific': z.object({ data: z.object({ compat: z.string().optional() }).prefault({}) }).optional(),
});

const device = z.object({
  device: z.string(),
  qdev: z.string().optional(),
  removable: z.boolean(),
  'io-status': z.string().optional(),
  inserted: z
    .object({
      'node-name': z.string(),
      ro: z.boolean(),
      drv: z.string(),
      image,
      'dirty-bitmaps': z.array(dirtyBitmap).prefault([]),
    })
    .optional(),
});

export interface QemuBitmap {
  readonly name: string;
  readonly recording: boolean;
  /** A job or an export uses it. */
  readonly busy: boolean;
  /** Kept in the image when the machine is shut down in order. */
  readonly persistent: boolean;
  /** QEMU did not end in order: nobody knows what is missing from it. */
  readonly inconsistent: boolean;
}

export interface QemuDisk {
  /** The id of its device where it has one: it stays the same for as long as the machine's definition does. */
  readonly label: string;
  /** The device's path in QEMU's object tree; empty where it has none. */
  readonly devicePath: string;
  readonly node: string;
  /** QEMU's driver of the topmost node: qcow2, raw, or a filter. */
  readonly format: string;
  readonly file: string;
  readonly capacityBytes: number;
  readonly readOnly: boolean;
  /** QEMU stops the guest where a write finds no room, and does not tell it of an error. */
  readonly stopsWhenFull: boolean;
  /** Internal snapshots: going back to one is not recorded by any bitmap. */
  readonly hasSnapshots: boolean;
  /** Bitmaps survive the end of QEMU. */
  readonly canPersist: boolean;
  readonly bitmaps: readonly QemuBitmap[];
}

/** All but CD-ROMs, floppies and firmware. */
export async function listDisks(qmp: QmpClient, signal: AbortSignal): Promise<readonly QemuDisk[]> {
  return (await listInserted(qmp, signal)).flatMap(({ name, qdev, removable, stopsWhenFull, inserted }) => {
    if (removable || isFirmware(qdev, name)) return [];
    const devicePath = qdev === '' || qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`;
    return [
      {
        label: labelOf(devicePath, name),
        devicePath,
        node: inserted['node-name'],
        format: inserted.drv,
        file: inserted.image.filename,
        capacityBytes: inserted.image['virtual-size'],
        readOnly: inserted.ro,
        stopsWhenFull,
        hasSnapshots: inserted.image.snapshots.length > 0,
        canPersist: inserted.drv === 'qcow2' && inserted.image['format-specific']?.data.compat !== '0.10',
        bitmaps: bitmapsOf(inserted['dirty-bitmaps']),
      },
    ];
  });
}

/** The flash memory that the firmware is in, or its variables. */
export type Firmware = Pick<QemuDisk, 'file' | 'format' | 'readOnly'>;

export async function listFirmware(qmp: QmpClient, signal: AbortSignal): Promise<readonly Firmware[]> {
  return (await listInserted(qmp, signal)).flatMap(({ name, qdev, inserted }) =>
    isFirmware(qdev, name) ? [{ file: inserted.image.filename, format: inserted.drv, readOnly: inserted.ro }] : [],
  );
}

async function listInserted(qmp: QmpClient, signal: AbortSignal) {
  const devices = parse(z.array(device), await qmp.run('query-block', {}, signal), 'query-block');
  return devices.flatMap(({ device: name, qdev = '', removable, inserted, 'io-status': status }) =>
    // It has a status only where it may be stopped.
    inserted === undefined ? [] : [{ name, qdev, removable, stopsWhenFull: status !== undefined, inserted }],
  );
}

/** No device of the guest's bus, though QEMU lists it among those: `/machine/system.flash1`, or by its drive's name. */
function isFirmware(qdev: string, name: string): boolean {
  return /^\/machine\/\w+\.flash\d+$/.test(qdev) || (qdev === '' && name.startsWith('pflash'));
}

const node = z.object({ 'node-name': z.string().optional(), 'dirty-bitmaps': z.array(dirtyBitmap).prefault([]) });

/** Every node, with the names of its bitmaps: also those that stand behind a filter. */
export async function listNodes(
  qmp: QmpClient,
  signal: AbortSignal,
): Promise<readonly { readonly node: string; readonly bitmaps: readonly string[] }[]> {
  const answer = await qmp.run('query-named-block-nodes', { flat: true }, signal);
  return parse(z.array(node), answer, 'query-named-block-nodes').map((each) => ({
    node: each['node-name'] ?? '',
    bitmaps: bitmapsOf(each['dirty-bitmaps']).map(({ name }) => name),
  }));
}

/** `/machine/peripheral/vda/virtio-backend`: the user called it vda. */
function labelOf(qdev: string, name: string): string {
  const given = /^\/machine\/peripheral\/([^/]+)/.exec(qdev)?.[1];
  return given ?? (name === '' ? qdev.replace(/^.*\//, '') : name);
}

function bitmapsOf(bitmaps: readonly z.output<typeof dirtyBitmap>[]): readonly QemuBitmap[] {
  return bitmaps.flatMap(({ name, recording, busy, persistent, inconsistent = false }) =>
    name === undefined ? [] : [{ name, recording, busy, persistent, inconsistent }],
  );
}

/** An answer of the monitor as what it is to be. */
export function parse<T>(schema: z.ZodType<T>, answer: unknown, command: string): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw new QmpLost(`QEMU answered ${command} in a form that this agent does not know: ${parsed.error.message}`);
}
