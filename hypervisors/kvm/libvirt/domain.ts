import type { Element } from '@xmldom/xmldom';
import { SourceNotFound } from '../../errors.ts';
import type { KvmMachine } from '../kvm-machine.ts';
import { LibvirtOutputInvalid } from './libvirt-errors.ts';
import type { Virsh } from './virsh.ts';
import { attributeOf, childOf, childrenOf, parseXml, textOf } from './xml.ts';

/** A domain as libvirt describes it while it runs. https://libvirt.org/formatdomain.html */

export interface LibvirtDisk {
  /** The name of its target, as `vda`: what libvirt calls it, too. */
  readonly label: string;
  readonly format: string;
  /** File or device on the domain's host; null where it is none. */
  readonly path: string | null;
  /** Of the disk that the guest sees, where it was given one. */
  readonly serial: string | null;
  readonly hasIothread: boolean;
  /** Whether QEMU can keep a bitmap in it. */
  readonly tracksChanges: boolean;
  /** Another job copies or merges it. */
  readonly isBusy: boolean;
  /** Why no snapshot can be taken of it; null where one can. */
  readonly unusable: string | null;
}

export interface Domain {
  readonly uuid: string;
  readonly disks: readonly LibvirtDisk[];
  /** `missing`: the domain has no channel for one. */
  readonly guestAgent: 'connected' | 'disconnected' | 'missing';
  /** The UEFI variables' own file. */
  readonly nvram: string | null;
  readonly hasTpm: boolean;
  /** The user and group that its QEMU runs as, where libvirt tells. */
  readonly runsAs: { readonly uid: number; readonly gid: number } | null;
}

/** Without CD-ROMs and floppies. */
export async function describeDomain(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<Domain> {
  const text = await virsh.run(['dumpxml', '--domain', uuid], signal);
  const root = parseXml(text, `what libvirt says of domain ${uuid}`, 'domain');
  const devices = childOf(root, 'devices');
  const controllers = childrenOf(devices, 'controller').filter(hasIothread);
  const agent = childrenOf(devices, 'channel')
    .map((channel) => childOf(channel, 'target'))
    .find((target) => attributeOf(target, 'name') === 'org.qemu.guest_agent.0');
  const disks = childrenOf(devices, 'disk').flatMap((disk) => describeDisk(disk, controllers) ?? []);
  return {
    uuid,
    disks,
    guestAgent: agent === undefined ? 'missing' : agentState(agent),
    nvram: fileOf(childOf(root, 'os', 'nvram')),
    hasTpm: attributeOf(childOf(devices, 'tpm', 'backend'), 'type') === 'emulator',
    runsAs: ownerOf(root),
  };
}

/** Older libvirts have it as text, newer ones in an element of its own. */
function fileOf(nvram: Element | null): string | null {
  return attributeOf(childOf(nvram, 'source'), 'file') ?? textOf(nvram);
}

/** What a run takes of the domain, and what it leaves out. */
export function chooseDisks(machine: KvmMachine, { disks }: Domain) {
  const labels = disks.map(({ label }) => label);
  const refuse = (what: string): SourceNotFound => new SourceNotFound(`machine ${machine.name}: ${what}`);
  const unknown = machine.excludedDisks.find((label) => !labels.includes(label));
  if (unknown !== undefined)
    throw refuse(`exclude names ${unknown}, and its disks are: ${labels.join(', ') || 'none'}`);
  const reasonToExclude = ({ label, unusable }: LibvirtDisk): string | null =>
    machine.excludedDisks.includes(label) ? 'the configuration excludes it' : unusable;
  const chosen = disks.filter((disk) => reasonToExclude(disk) === null);
  const excluded = disks.flatMap((disk) => {
    const reason = reasonToExclude(disk);
    return reason === null ? [] : [{ label: disk.label, reason }];
  });
  if (chosen.length === 0) {
    const why = excluded.map(({ label, reason }) => `${label}: ${reason}`).join('; ');
    throw refuse(`it has no disk to protect${why === '' ? '' : ` (${why})`}`);
  }
  return { chosen, excluded };
}

export interface DiskSizes {
  readonly capacityBytes: number;
  readonly allocatedBytes: number;
}

/** Of each disk, by its label. */
export async function sizesOf(
  virsh: Virsh,
  uuid: string,
  labels: readonly string[],
  signal: AbortSignal,
): Promise<(label: string) => DiskSizes> {
  const sizes = new Map<string, DiskSizes>();
  for (const label of labels) {
    const text = await virsh.run(['domblkinfo', '--domain', uuid, '--device', label], signal);
    sizes.set(label, parseSizes(text, label));
  }
  return (label) => {
    const found = sizes.get(label);
    if (found === undefined) throw new Error(`nobody asked for the size of disk ${label}`);
    return found;
  };
}

/** It has no form for programs; the words are those of the program's own language, which LC_ALL=C makes sure of. */
function parseSizes(text: string, label: string): DiskSizes {
  const number = (word: string): number => Number(new RegExp(`^${word}: +(\\d+)$`, 'm').exec(text)?.[1]);
  const [capacityBytes, allocatedBytes] = [number('Capacity'), number('Allocation')];
  if (!Number.isSafeInteger(capacityBytes) || !Number.isSafeInteger(allocatedBytes))
    throw new LibvirtOutputInvalid(`virsh domblkinfo for disk ${label} gave what this agent can't read`);
  return { capacityBytes, allocatedBytes };
}

/** `+64055:+64055`, as the plainest of libvirt's security drivers labels it. */
function ownerOf(root: Element): Domain['runsAs'] {
  const dac = childrenOf(root, 'seclabel').find((label) => attributeOf(label, 'model') === 'dac');
  const ids = /^\+(\d+):\+(\d+)$/.exec(textOf(childOf(dac ?? null, 'label')) ?? '');
  return ids === null ? null : { uid: Number(ids[1]), gid: Number(ids[2]) };
}

function describeDisk(disk: Element, fastControllers: readonly Element[]): LibvirtDisk | null {
  const device = attributeOf(disk, 'device') ?? 'disk';
  const label = attributeOf(childOf(disk, 'target'), 'dev');
  if (label === null || device === 'cdrom' || device === 'floppy') return null;
  const source = childOf(disk, 'source');
  const format = attributeOf(childOf(disk, 'driver'), 'type') ?? 'raw';
  return {
    label,
    format,
    path: attributeOf(source, 'file') ?? attributeOf(source, 'dev'),
    serial: textOf(childOf(disk, 'wwn')) ?? textOf(childOf(disk, 'serial')),
    hasIothread: hasIothread(disk) || isAttachedToAny(disk, fastControllers),
    tracksChanges: format === 'qcow2',
    isBusy: childOf(disk, 'mirror') !== null,
    unusable: reasonUnusable(disk, device, source),
  };
}

function reasonUnusable(disk: Element, device: string, source: Element | null): string | null {
  if (device !== 'disk') return `it is a ${device} that is passed through to the guest`;
  if (childOf(disk, 'readonly') !== null) return 'the guest may only read it';
  if (childOf(disk, 'shareable') !== null) return 'other machines may write it, too';
  if (childOf(disk, 'transient') !== null) return 'it loses its changes when the machine ends';
  const type = attributeOf(disk, 'type') ?? 'file';
  if (source === null) return 'it has no image';
  return type === 'file' || type === 'block'
    ? null
    : `its image is not a file or device of the host but of type ${type}`;
}

function hasIothread(device: Element): boolean {
  const driver = childOf(device, 'driver');
  return attributeOf(driver, 'iothread') !== null || childOf(driver, 'iothreads') !== null;
}

function isAttachedToAny(disk: Element, controllers: readonly Element[]): boolean {
  const address = childOf(disk, 'address');
  const bus = attributeOf(childOf(disk, 'target'), 'bus');
  return controllers.some(
    (controller) =>
      attributeOf(controller, 'type') === bus &&
      (attributeOf(controller, 'index') ?? '0') === (attributeOf(address, 'controller') ?? '0'),
  );
}

function agentState(target: Element | null): 'connected' | 'disconnected' {
  return attributeOf(target, 'state') === 'connected' ? 'connected' : 'disconnected';
}

/** As libvirt counts them. */
const domainState = { running: 1, blocked: 2, paused: 3, shutOff: 5, crashed: 6 } as const;
const pausedByIoError = 5;

export interface RunState {
  readonly runs: boolean;
  /** QEMU stopped it because a write of the guest found no room. */
  readonly stoppedByIoError: boolean;
}

export async function runStateOf(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<RunState> {
  const text = await virsh.run(['domstats', '--state', '--raw', uuid], signal);
  const number = (key: string): number => Number(new RegExp(`^ *state\\.${key}=(\\d+)$`, 'm').exec(text)?.[1]);
  const [state, reason] = [number('state'), number('reason')];
  return {
    runs: state !== domainState.shutOff && state !== domainState.crashed && state > 0,
    stoppedByIoError: state === domainState.paused && reason === pausedByIoError,
  };
}
