import type { Element } from '@xmldom/xmldom';
import { booleanOf, childOf, childText, integerOf, typeOf } from './vim25/soap-xml.ts';
import { VsphereAnswerInvalid } from './vsphere-errors.ts';

/** The virtual disks among a machine's devices, and why some can't be protected. */

export interface VsphereDisk {
  /** Where it is attached, `scsi0:1`: names the disk in the replica. */
  readonly label: string;
  /** The number by which calls name the device. */
  readonly key: number;
  readonly capacityBytes: number;
  /** `[datastore] folder/name.vmdk`. */
  readonly file: string;
  /** Who the disk is, wherever it is attached and whatever its file is called. */
  readonly identity: string | null;
  /** The moment of a snapshot, as changed block tracking knows it; null where it does not track the disk. */
  readonly changeId: string | null;
  readonly encrypted: boolean;
  /** Why no snapshot of it can be had; null: nothing is in the way. */
  readonly refusal: string | null;
}

const busNames: readonly (readonly [type: RegExp, bus: string])[] = [
  [/SCSI|LsiLogic|BusLogic/, 'scsi'],
  [/AHCI|SATA/, 'sata'],
  [/NVME/, 'nvme'],
  [/IDE/, 'ide'],
];

/** `devices`: the elements of `config.hardware.device`. */
export function disksOf(devices: readonly Element[]): readonly VsphereDisk[] {
  const controllers = new Map(devices.map((device) => [childText(device, 'key'), device]));
  const disks = devices.filter((device) => typeOf(device) === 'VirtualDisk' || isDiskByShape(device));
  return disks.map((disk) => readDisk(disk, controllers.get(childText(disk, 'controllerKey')) ?? null));
}

/** A subtype that a later release may bring is still a disk. */
function isDiskByShape(device: Element): boolean {
  return childOf(device, 'capacityInKB') !== null && childOf(device, 'backing') !== null;
}

function readDisk(disk: Element, controller: Element | null): VsphereDisk {
  const backing = childOf(disk, 'backing');
  const key = integerOf(childOf(disk, 'key'));
  const kibibytes = integerOf(childOf(disk, 'capacityInKB'));
  if (key === null || kibibytes === null) throw new VsphereAnswerInvalid('a disk has no key or no size');
  return {
    label: labelOf(disk, key, controller),
    key,
    capacityBytes: integerOf(childOf(disk, 'capacityInBytes')) ?? kibibytes * 1024,
    file: childText(backing, 'fileName') ?? '',
    identity: childText(disk, 'vDiskId', 'id') ?? (childText(backing, 'uuid') || null),
    changeId: childText(backing, 'changeId') || null,
    encrypted: childOf(backing, 'keyId') !== null,
    refusal: refusalOf(backing, controller),
  };
}

function labelOf(disk: Element, key: number, controller: Element | null): string {
  const type = typeOf(controller) ?? '';
  const bus = busNames.find(([pattern]) => pattern.test(type))?.[1] ?? null;
  const unit = integerOf(childOf(disk, 'unitNumber'));
  const number = integerOf(childOf(controller, 'busNumber'));
  return bus === null || unit === null || number === null ? `disk-${key}` : `${bus}${number}:${unit}`;
}

function refusalOf(backing: Element | null, controller: Element | null): string | null {
  const type = typeOf(backing) ?? 'unknown';
  const mode = childText(backing, 'diskMode') ?? 'persistent';
  const sharing = childText(backing, 'sharing');
  const sharedBus = childText(controller, 'sharedBus');
  if (/RawDiskMapping/.test(type) && childText(backing, 'compatibilityMode') === 'physicalMode')
    return 'it is a raw device in physical mode, of which vSphere takes no snapshots: protect it from inside the guest';
  if (/RawDiskVer2|PartitionedRaw|LocalPMem/.test(type))
    return `its backing is ${type}, of which vSphere takes no snapshots`;
  if (/^independent/.test(mode)) return `its mode is ${mode}: snapshots leave it out; set it to dependent`;
  if (sharing === 'sharingMultiWriter')
    return 'it is shared by several machines (multi-writer): changes are not tracked';
  if (sharedBus === 'virtualSharing' || sharedBus === 'physicalSharing')
    return `its controller shares its bus (${sharedBus}): vSphere takes no snapshots of it`;
  if (childText(backing, 'fileName') === null) return `its backing is ${type}, which has no file`;
  return null;
}

/** Of a setting list (`extraConfig`), whose keys vary in their capitals. */
export function settingOf(settings: readonly Element[], key: string): string | null {
  const found = settings.find((setting) => childText(setting, 'key')?.toLowerCase() === key.toLowerCase());
  return childText(found ?? null, 'value');
}

export function hasTpm(devices: readonly Element[]): boolean {
  return devices.some((device) => typeOf(device) === 'VirtualTPM');
}

/** `config`: of the machine. With a key of its own, all its files but the disks are encrypted; each disk says so for itself. */
export function isEncrypted(config: Element): boolean {
  return childOf(config, 'keyId') !== null;
}

export function isOn(value: Element | null): boolean {
  return booleanOf(value) === true;
}
