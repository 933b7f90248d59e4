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

/** Processors, memory nodes, labels, groups and arguments of the old host. */
function removeHostTuning(root: Element): void {
  const names = ['cputune', 'numatune', 'memoryBacking', 'resource', 'seclabel', 'perf'];
  // With or without the prefix that the namespace was given.
  const foreign = /(^|:)(commandline|override|capabilities|deprecation)$/;
  for (const child of [...root.children])
    if (names.includes(child.tagName) || foreign.test(child.tagName)) removeElement(child);
  for (const vcpu of childrenOf(root, 'vcpu')) vcpu.removeAttribute('cpuset');
  for (const cpu of childrenOf(root, 'cpu')) loosenProcessor(cpu);
}

/** What the old host offered, the new one may lack. Its topology stays. */
function loosenProcessor(cpu: Element): void {
  for (const name of ['mode', 'match', 'check', 'migratable']) cpu.removeAttribute(name);
  cpu.setAttribute('mode', 'host-model');
  for (const child of [...cpu.children])
    if (['model', 'vendor', 'feature', 'cache', 'maxphysaddr'].includes(child.tagName)) removeElement(child);
}

function placeDisks(devices: Element, { disks }: RestoredMachine): void {
  for (const element of childrenOf(devices, 'disk')) {
    const label = attributeOf(childOf(element, 'target'), 'dev');
    const kind = attributeOf(element, 'device') ?? 'disk';
    const restored = disks.find((disk) => disk.label === label);
    for (const name of ['backingStore', 'mirror', 'auth', 'encryption', 'alias', 'iotune'])
      for (const child of childrenOf(element, name)) removeElement(child);
    for (const source of childrenOf(element, 'source')) removeElement(source);
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
  const template = attributeOf(childOf(os, 'nvram'), 'template');
  for (const element of childrenOf(os, 'nvram')) removeElement(element);
  if (nvram !== null) addChild(os, { name: 'nvram', attributes: { template }, children: [nvram] });
}

function placeInterfaces(devices: Element, network: string | null): void {
  for (const element of childrenOf(devices, 'interface')) {
    if (network === null) {
      removeElement(element);
      continue;
    }
    const model = attributeOf(childOf(element, 'model'), 'type');
    for (const child of [...element.children]) removeElement(child);
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

/** Devices of the host, folders of it, sockets and addresses on it. */
function removeHostDevices(devices: Element): void {
  for (const name of [
    'emulator',
    'hostdev',
    'redirdev',
    'redirfilter',
    'filesystem',
    'shmem',
    'lease',
    'vsock',
    'smartcard',
  ])
    for (const device of childrenOf(devices, name)) removeElement(device);
  for (const name of ['serial', 'console', 'parallel', 'channel'])
    for (const port of childrenOf(devices, name)) placePort(port);
  for (const graphics of childrenOf(devices, 'graphics')) placeGraphics(graphics);
}

function placePort(port: Element): void {
  const isVirtual = attributeOf(childOf(port, 'target'), 'type') === 'virtio';
  // A channel that no program of the guest knows by name belongs to a viewer on the old host.
  if (port.tagName === 'channel' && !isVirtual) {
    removeElement(port);
    return;
  }
  for (const name of ['source', 'protocol', 'log', 'alias'])
    for (const child of childrenOf(port, name)) removeElement(child);
  port.setAttribute('type', port.tagName === 'channel' ? 'unix' : 'pty');
  childOf(port, 'target')?.removeAttribute('state');
}

function placeGraphics(graphics: Element): void {
  const type = attributeOf(graphics, 'type');
  if (type !== 'vnc' && type !== 'spice') {
    removeElement(graphics);
    return;
  }
  for (const { name } of [...graphics.attributes]) if (name !== 'type') graphics.removeAttribute(name);
  for (const child of [...graphics.children]) removeElement(child);
  graphics.setAttribute('port', '-1');
  graphics.setAttribute('autoport', 'yes');
  addChild(graphics, { name: 'listen', attributes: { type: 'address', address: '127.0.0.1' } });
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
