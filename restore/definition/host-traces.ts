import type { Element } from '@xmldom/xmldom';
import { addChild, attributeOf, childOf, childrenOf, removeElement } from '../../hypervisors/kvm/libvirt/xml.ts';

/** What in a definition means the host that the machine was on, and what takes its place. https://libvirt.org/formatdomain.html */

/** Limits and pinning, labels, groups, keys of its processors, and arguments for its QEMU. */
const hostSettings = [
  ...['cputune', 'numatune', 'memtune', 'blkiotune', 'memoryBacking', 'resource', 'seclabel', 'perf'],
  ...['launchSecurity', 'throttlegroups'],
];

export function removeHostTuning(root: Element): void {
  // With or without the prefix that the namespace was given.
  const foreign = /(^|:)(commandline|override|capabilities|deprecation)$/;
  for (const child of [...root.children])
    if (hostSettings.includes(child.tagName) || foreign.test(child.tagName)) removeElement(child);
  // `auto` asks a program of the host where to run.
  for (const vcpu of childrenOf(root, 'vcpu')) for (const name of ['cpuset', 'placement']) vcpu.removeAttribute(name);
  for (const cell of childrenOf(childOf(root, 'cpu', 'numa'), 'cell')) cell.removeAttribute('memAccess');
  for (const table of childrenOf(childOf(root, 'os'), 'acpi')) removeElement(table);
  removeHostFiles(root);
  for (const cpu of childrenOf(root, 'cpu')) loosenProcessor(cpu);
}

/** Entries of the firmware's configuration that stand in files of the old host. */
function removeHostFiles(root: Element): void {
  for (const entry of childrenOf(root, 'sysinfo').flatMap((info) => childrenOf(info, 'entry')))
    if (entry.hasAttribute('file')) removeElement(entry);
}

/** What the old host offered, the new one may lack. Its topology stays. */
function loosenProcessor(cpu: Element): void {
  for (const name of ['mode', 'match', 'check', 'migratable']) cpu.removeAttribute(name);
  cpu.setAttribute('mode', 'host-model');
  for (const child of [...cpu.children])
    if (['model', 'vendor', 'feature', 'cache', 'maxphysaddr'].includes(child.tagName)) removeElement(child);
}

/** Devices of the host, folders of it, sockets and addresses on it. */
const hostDevices = [
  ...['emulator', 'hostdev', 'redirdev', 'redirfilter', 'filesystem', 'shmem', 'lease', 'vsock', 'smartcard', 'pstore'],
];

export function removeHostDevices(devices: Element): void {
  for (const name of hostDevices) for (const device of childrenOf(devices, name)) removeElement(device);
  // Non-volatile memory is a file of the host: two machines would write to one.
  for (const memory of childrenOf(devices, 'memory'))
    if (childOf(memory, 'source', 'path') !== null) removeElement(memory);
  for (const input of childrenOf(devices, 'input'))
    if (['passthrough', 'evdev'].includes(attributeOf(input, 'type') ?? '')) removeElement(input);
  for (const tpm of childrenOf(devices, 'tpm')) placeTpm(tpm);
  for (const rng of childrenOf(devices, 'rng')) placeRandomness(rng);
  for (const audio of childrenOf(devices, 'audio')) placeAudio(audio);
  for (const video of childrenOf(devices, 'video'))
    for (const model of childrenOf(video, 'model'))
      for (const drawing of childrenOf(model, 'acceleration')) removeElement(drawing);
  for (const name of ['serial', 'console', 'parallel', 'channel'])
    for (const port of childrenOf(devices, name)) placePort(port);
  for (const graphics of childrenOf(devices, 'graphics')) placeGraphics(graphics);
}

/** Emulated, with a state of its own: not the old host's chip, nor the state of the original, nor a secret that is not here. */
function placeTpm(tpm: Element): void {
  const version = attributeOf(childOf(tpm, 'backend'), 'version');
  for (const backend of childrenOf(tpm, 'backend')) removeElement(backend);
  addChild(tpm, { name: 'backend', attributes: { type: 'emulator', version } });
}

function placeRandomness(rng: Element): void {
  for (const backend of childrenOf(rng, 'backend')) removeElement(backend);
  addChild(rng, { name: 'backend', attributes: { model: 'random' }, children: ['/dev/urandom'] });
}

/** A card whose sound nobody hears. */
function placeAudio(audio: Element): void {
  for (const child of [...audio.children]) removeElement(child);
  for (const { name } of [...audio.attributes]) if (name !== 'id') audio.removeAttribute(name);
  audio.setAttribute('type', 'none');
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
