import type { Element } from '@xmldom/xmldom';
import type { Attachment } from '../hypervisor.ts';
import { disksOf, hasTpm, settingOf } from './machine-disks.ts';
import { childOf, childrenOf, childText, printXml, type Reference } from './vim25/soap-xml.ts';

/** What besides its disks makes a machine: all that vSphere says of it, and in short what somebody needs who restores it elsewhere. */

const machineConfigurationName = 'vsphere-config.xml';
const machineSummaryName = 'vsphere-machine.json';

/** `config`: of the snapshot. */
export function captureConfiguration(config: Element, product: string, { id }: Reference): readonly Attachment[] {
  const devices = childrenOf(childOf(config, 'hardware'), 'device');
  const summary = {
    product,
    machine: id,
    name: childText(config, 'name'),
    instanceUuid: childText(config, 'instanceUuid'),
    guest: childText(config, 'guestFullName'),
    hardwareVersion: childText(config, 'version'),
    firmware: childText(config, 'firmware') ?? 'bios',
    secureBoot: childText(config, 'bootOptions', 'efiSecureBootEnabled') === 'true',
    cores: childText(config, 'hardware', 'numCPU'),
    memoryMiB: childText(config, 'hardware', 'memoryMB'),
    /** Of the datastore: UEFI variables are in it. It is not captured. */
    nvramFile: settingOf(childrenOf(config, 'extraConfig'), 'nvram'),
    /** Its keys never leave vSphere's key provider: a guest that needs them asks for its recovery key elsewhere. */
    hasTpm: hasTpm(devices),
    disks: disksOf(devices).map(({ label, key, capacityBytes, file, identity }) => ({
      label,
      key,
      capacityBytes,
      file,
      identity,
    })),
  };
  const attachment = (name: string, text: string): Attachment => ({ name, bytes: new TextEncoder().encode(text) });
  return [
    attachment(machineConfigurationName, printXml(config)),
    attachment(machineSummaryName, `${JSON.stringify(summary, null, 2)}\n`),
  ];
}
