import type { Element } from '@xmldom/xmldom';
import type { Attachment } from '../hypervisor.ts';
import type { CapturedNvram } from './capture-nvram.ts';
import { disksOf, hasTpm } from './machine-disks.ts';
import { childOf, childrenOf, childText, printXml, type Reference } from './vim25/soap-xml.ts';

/** What besides its disks makes a machine: all that vSphere says of it, and in short what somebody needs who restores it elsewhere. */

export const machineConfigurationName = 'vsphere-config.xml';
const machineSummaryName = 'vsphere-machine.json';
/** UEFI variables, or the settings of a BIOS. */
export const nvramName = 'vsphere.nvram';

/** `config`: of the snapshot. */
export function captureConfiguration(
  config: Element,
  product: string,
  { id }: Reference,
  nvram: CapturedNvram,
): readonly Attachment[] {
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
    /** UEFI variables are in it. */
    nvram: { file: nvram.file, missing: 'missing' in nvram ? nvram.missing : null },
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
    ...('bytes' in nvram ? [{ name: nvramName, bytes: nvram.bytes }] : []),
  ];
}
