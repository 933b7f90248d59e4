import { randomBytes, randomUUID } from 'node:crypto';
import type { Element } from '@xmldom/xmldom';
import {
  addChild,
  attributeOf,
  childOf,
  childrenOf,
  parseXml,
  printXml,
  removeElement,
  setText,
  textOf,
} from '../../hypervisors/kvm/libvirt/xml.ts';
import { removeHostDevices, removeHostTuning } from './host-traces.ts';
import type { RestoredMachine } from './restored-machine.ts';

/**
 * The definition that a machine had, rewritten so that it can run beside the original and anywhere: another name and identity, the restored
 * disks, nothing of the old host, and no way into a network unless one is named. https://libvirt.org/formatdomain.html
 */
export function newDefinition(captured: string, machine: RestoredMachine): string {
  const root = parseXml(captured, 'the definition that the point holds', 'domain');
  const devices = childOf(root, 'devices') ?? addChild(root, { name: 'devices' });
  renameMachine(root, machine.name);
  removeHostTuning(root);
  placeDisks(devices, machine);
  placeFirmware(root, machine.nvram);
  placeInterfaces(devices, machine.network);
  removeHostDevices(devices);
  return `${printXml(root)}\n`;
}

function renameMachine(root: Element, name: string): void {
  const uuid = randomUUID();
  root.removeAttribute('id');
  setText(root, 'name', name);
  setText(root, 'uuid', uuid);
  // It tells the guest that it is a copy: directory servers and databases then mend what they must.
  if (childOf(root, 'genid') !== null) setText(root, 'genid', randomUUID());
  for (const system of childrenOf(childOf(root, 'sysinfo'), 'system'))
    for (const entry of childrenOf(system, 'entry'))
      if (attributeOf(entry, 'name') === 'uuid') entry.textContent = uuid;
}

/** `transient` would throw away what the machine writes, `shareable` is for a second machine that is not here. */
const hostPartsOfDisk = [
  ...['source', 'backingStore', 'mirror', 'auth', 'encryption', 'alias', 'iotune', 'throttlefilters'],
  ...['transient', 'shareable', 'privateData'],
];

function placeDisks(devices: Element, { disks }: RestoredMachine): void {
  for (const element of childrenOf(devices, 'disk')) {
    const label = attributeOf(childOf(element, 'target'), 'dev');
    const kind = attributeOf(element, 'device') ?? 'disk';
    const restored = disks.find((disk) => disk.label === label);
    for (const name of hostPartsOfDisk) for (const child of childrenOf(element, name)) removeElement(child);
    for (const name of ['sgio', 'rawio']) element.removeAttribute(name);
    if (restored === undefined && kind === 'disk') removeElement(element);
    else if (restored === undefined) element.setAttribute('type', 'file');
    else placeDisk(element, restored);
  }
}

function placeDisk(element: Element, { path, format }: RestoredMachine['disks'][number]): void {
  element.setAttribute('type', 'file');
  element.setAttribute('device', 'disk');
  for (const driver of childrenOf(element, 'driver')) removeElement(driver);
  addChild(element, { name: 'driver', attributes: { name: 'qemu', type: format, discard: 'unmap' } });
  addChild(element, { name: 'source', attributes: { file: path } });
}

function placeFirmware(root: Element, nvram: string | null): void {
  const os = childOf(root, 'os');
  if (os === null) return;
  const captured = childOf(os, 'nvram');
  const kept = ['template', 'templateFormat', 'format'].map((name) => [name, attributeOf(captured, name)] as const);
  for (const element of childrenOf(os, 'nvram')) removeElement(element);
  if (nvram !== null) addChild(os, { name: 'nvram', attributes: Object.fromEntries(kept), children: [nvram] });
}

function placeInterfaces(devices: Element, network: string | null): void {
  for (const element of childrenOf(devices, 'interface')) {
    if (network === null) {
      removeElement(element);
      continue;
    }
    const model = attributeOf(childOf(element, 'model'), 'type');
    // Guests name their network cards by it.
    const place = attributeOf(childOf(element, 'address'), 'type') === 'pci' ? childOf(element, 'address') : null;
    for (const child of [...element.children]) if (child !== place) removeElement(child);
    for (const { name } of [...element.attributes]) element.removeAttribute(name);
    element.setAttribute('type', 'network');
    addChild(element, { name: 'mac', attributes: { address: newMac() } });
    addChild(element, { name: 'source', attributes: { network } });
    if (model !== null) addChild(element, { name: 'model', attributes: { type: model } });
  }
}

/** Of the range that belongs to QEMU. */
function newMac(): string {
  return ['52', '54', '00', ...[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}

/** What a plain QEMU needs to know of it, besides its disks. */
export interface MachineShape {
  readonly machineType: string | null;
  readonly architecture: string;
  readonly memoryMiB: number;
  readonly processors: number;
  readonly loader: string | null;
  /** `virtio`, `scsi`, `sata`, `ide`, … by label. */
  readonly buses: ReadonlyMap<string, string>;
}

const bytesByUnit: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  KB: 1e3,
  k: 2 ** 10,
  KiB: 2 ** 10,
  MB: 1e6,
  M: 2 ** 20,
  MiB: 2 ** 20,
  GB: 1e9,
  G: 2 ** 30,
  GiB: 2 ** 30,
  TB: 1e12,
  T: 2 ** 40,
  TiB: 2 ** 40,
};

export function shapeOf(captured: string): MachineShape {
  const root = parseXml(captured, 'the definition that the point holds', 'domain');
  const type = childOf(root, 'os', 'type');
  const memory = childOf(root, 'memory');
  const bytes = Number(textOf(memory)) * (bytesByUnit[attributeOf(memory, 'unit') ?? 'KiB'] ?? 2 ** 10);
  const disks = childrenOf(childOf(root, 'devices'), 'disk').map((disk) => childOf(disk, 'target'));
  return {
    machineType: attributeOf(type, 'machine'),
    architecture: attributeOf(type, 'arch') ?? 'x86_64',
    memoryMiB: Math.max(1, Math.round(bytes / 2 ** 20)),
    processors: Number(textOf(childOf(root, 'vcpu')) ?? 1),
    loader: textOf(childOf(root, 'os', 'loader')),
    buses: new Map(
      disks.map((target) => [attributeOf(target, 'dev') ?? '', attributeOf(target, 'bus') ?? 'virtio'] as const),
    ),
  };
}
