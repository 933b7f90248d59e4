import type { Element } from '@xmldom/xmldom';
import { disksOf, hasTpm, isEncrypted, settingOf } from '../machine-disks.ts';
import {
  booleanTag,
  childOf,
  childrenOf,
  childText,
  referenceTag,
  tag,
  typedTag,
  typeOf,
  type Xml,
} from '../vim25/soap-xml.ts';
import { ConfigurationUnusable } from '../vsphere-errors.ts';
import type { NetworkPlace } from './find-place.ts';

/**
 * What a new machine is to be, from what was captured of the old one. What is named here is taken over; identities, networks, and what is
 * the old host's own are not. https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.ConfigSpec.html
 */

export interface NewMachine {
  readonly name: string;
  /** `[datastore] folder/name.vmx`. */
  readonly file: string;
  /** In the folder of `file`; null: the host makes a new one. */
  readonly nvramFile: string | null;
  readonly disks: readonly { readonly label: string; readonly file: string; readonly capacityBytes: number }[];
  readonly network: NetworkPlace | null;
}

export interface MachineSpec {
  readonly spec: Xml;
  /** What the old machine had, and this one does not; in words. */
  readonly leftOut: readonly string[];
}

/** Every machine has these of its own. */
const builtIn =
  /^Virtual(IDEController|PS2Controller|PCIController|SIOController|Keyboard|PointingDevice|MachineVMCIDevice|MachineVideoCard)$/;
const diskControllers =
  /^(ParaVirtualSCSIController|VirtualLsiLogicController|VirtualLsiLogicSASController|VirtualBusLogicController|VirtualAHCIController|VirtualNVMEController)$/;
const cards = /^Virtual(Vmxnet3|Vmxnet2|E1000|E1000e|PCNet32)$/;
const anyCard = /^Virtual(Vmxnet\w*|E1000e?|PCNet32|SriovEthernetCard|EthernetCard)$/;
const cardWhereNoneFits = 'VirtualVmxnet3';

/** `config`: a captured VirtualMachineConfigInfo. Throws ConfigurationUnusable. */
export function machineSpec(config: Element, machine: NewMachine): MachineSpec {
  const hardware = childOf(config, 'hardware');
  const devices = childrenOf(hardware, 'device');
  const change = devicesOf(devices, machine);
  const bootOptions = childOf(config, 'bootOptions');
  const flags = childOf(config, 'flags');
  // In the order of the WSDL.
  const spec = tag('config', [
    tag('name', machine.name),
    ...copied(config, 'version', 'guestId', 'alternateGuestName', 'annotation'),
    tag('files', [tag('vmPathName', machine.file)]),
    ...group(
      'flags',
      copied(flags, 'diskUuidEnabled', 'virtualMmuUsage', 'virtualExecUsage', 'vvtdEnabled', 'vbsEnabled'),
    ),
    ...renamed(hardware, 'numCPU', 'numCPUs'),
    ...copied(hardware, 'numCoresPerSocket', 'memoryMB'),
    ...copied(config, 'memoryHotAddEnabled', 'cpuHotAddEnabled', 'cpuHotRemoveEnabled'),
    ...copied(hardware, 'virtualICH7MPresent', 'virtualSMCPresent'),
    ...change.added,
    ...settings(config, machine),
    ...group(
      'bootOptions',
      copied(bootOptions, 'bootDelay', 'efiSecureBootEnabled', 'bootRetryEnabled', 'bootRetryDelay'),
    ),
    ...copied(config, 'firmware', 'nestedHVEnabled', 'vPMCEnabled'),
    ...copied(hardware, 'motherboardLayout'),
  ]);
  return { spec, leftOut: [...change.leftOut, ...notCarried(config, devices, machine)] };
}

function copied(parent: Element | null, ...names: readonly string[]): readonly Xml[] {
  return names.flatMap((name) => renamed(parent, name, name));
}

function renamed(parent: Element | null, from: string, to: string): readonly Xml[] {
  const text = childText(parent, from);
  return text === null || text.trim() === '' ? [] : [tag(to, text)];
}

function group(name: string, content: readonly Xml[]): readonly Xml[] {
  return content.length === 0 ? [] : [tag(name, content)];
}

function settings(config: Element, { nvramFile }: NewMachine): readonly Xml[] {
  const diskUuids = settingOf(childrenOf(config, 'extraConfig'), 'disk.EnableUUID');
  const values = {
    ...(nvramFile !== null && { nvram: nvramFile }),
    ...(diskUuids !== null && { 'disk.EnableUUID': diskUuids }),
  };
  return Object.entries(values).map(([key, value]) =>
    typedTag('extraConfig', 'OptionValue', [tag('key', key), tag('value', value, { 'xsi:type': 'xsd:string' })]),
  );
}

function notCarried(config: Element, devices: readonly Element[], { nvramFile }: NewMachine): readonly string[] {
  const isBlank = childText(config, 'firmware') === 'efi' && nvramFile === null;
  return [
    ...(isBlank ? ['its UEFI variables, which were not captured: it boots by the default path'] : []),
    ...(hasTpm(devices) ? ['its virtual TPM: add one by hand; the guest asks for its recovery key'] : []),
    ...(isEncrypted(config) ? ['its encryption: what is restored is not encrypted by vSphere'] : []),
  ];
}

function devicesOf(devices: readonly Element[], machine: NewMachine) {
  const labels = new Map(disksOf(devices).map(({ label, key }) => [label, key]));
  const byKey = new Map(devices.map((device) => [childText(device, 'key'), device]));
  const controllers = new Set<Element>();
  const disks = machine.disks.map((disk, i) => {
    const device = byKey.get(String(labels.get(disk.label)));
    const controller = byKey.get(childText(device ?? null, 'controllerKey') ?? '');
    if (device === undefined || controller === undefined)
      throw new ConfigurationUnusable(`the captured configuration does not say where disk ${disk.label} is attached`);
    if (typeOf(controller) !== 'VirtualIDEController') controllers.add(controller);
    return added('VirtualDisk', diskContent(disk, device, -(i + 1)));
  });
  const old = devices.filter((device) => anyCard.test(typeOf(device) ?? ''));
  const { network } = machine;
  const connected = network === null ? [] : old.map((card, i) => cardOf(card, network, -(1000 + i)));
  const carried = (type: string): boolean =>
    builtIn.test(type) ||
    diskControllers.test(type) ||
    type === 'VirtualDisk' ||
    type === 'VirtualTPM' ||
    anyCard.test(type);
  const others = devices.map((device) => typeOf(device) ?? 'a device without a type').filter((type) => !carried(type));
  const isUnconnected = network === null && old.length > 0;
  return {
    added: [...[...controllers].map(controllerOf), ...disks, ...connected],
    leftOut: [
      ...(isUnconnected
        ? [`its ${old.length === 1 ? 'network card' : `${old.length} network cards`}: --network connects them`]
        : []),
      ...[...new Set(others)].sort(),
    ],
  };
}

function added(type: string, content: readonly Xml[]): Xml {
  return tag('deviceChange', [tag('operation', 'add'), typedTag('device', type, content)]);
}

function controllerOf(controller: Element): Xml {
  const type = typeOf(controller) ?? '';
  if (!diskControllers.test(type))
    throw new ConfigurationUnusable(
      `a disk is attached to a ${type || 'controller without a type'}, which this release does not know`,
    );
  const content = [...copied(controller, 'key'), ...slotOf(controller), ...copied(controller, 'busNumber')];
  return added(type, /SCSI|Logic/.test(type) ? [...content, tag('sharedBus', 'noSharing')] : content);
}

/** Guests name their devices by it. */
function slotOf(device: Element): readonly Xml[] {
  const number = childText(device, 'slotInfo', 'pciSlotNumber');
  return number === null ? [] : [typedTag('slotInfo', 'VirtualDevicePciBusSlotInfo', [tag('pciSlotNumber', number)])];
}

function diskContent(disk: NewMachine['disks'][number], device: Element, key: number): readonly Xml[] {
  return [
    tag('key', String(key)),
    typedTag('backing', 'VirtualDiskFlatVer2BackingInfo', [tag('fileName', disk.file), tag('diskMode', 'persistent')]),
    ...copied(device, 'controllerKey', 'unitNumber'),
    tag('capacityInKB', String(Math.floor(disk.capacityBytes / 1024))),
    tag('capacityInBytes', String(disk.capacityBytes)),
  ];
}

function cardOf(card: Element, network: NetworkPlace, key: number): Xml {
  const type = typeOf(card) ?? '';
  const backing =
    network.kind === 'standard'
      ? typedTag('backing', 'VirtualEthernetCardNetworkBackingInfo', [
          tag('deviceName', network.name),
          referenceTag('network', network.ref),
        ])
      : typedTag('backing', 'VirtualEthernetCardDistributedVirtualPortBackingInfo', [
          tag('port', [tag('switchUuid', network.switchUuid), tag('portgroupKey', network.portgroupKey)]),
        ]);
  return added(cards.test(type) ? type : cardWhereNoneFits, [
    tag('key', String(key)),
    backing,
    tag('connectable', [
      booleanTag('startConnected', true),
      booleanTag('allowGuestControl', true),
      booleanTag('connected', false),
    ]),
    ...slotOf(card),
    tag('addressType', 'generated'),
  ]);
}
