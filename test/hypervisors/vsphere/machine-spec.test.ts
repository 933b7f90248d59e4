/** What a new machine is to be, written after what vSphere's documentation says of a machine's configuration. */
import { describe, expect, it } from 'vitest';
import { readDescriptor, writeDescriptor } from '../../../hypervisors/vsphere/datastore/disk-descriptor.ts';
import { machineSpec, type NewMachine } from '../../../hypervisors/vsphere/new-machine/machine-spec.ts';
import { parseSoapXml } from '../../../hypervisors/vsphere/vim25/soap-xml.ts';
import { ConfigurationUnusable } from '../../../hypervisors/vsphere/vsphere-errors.ts';

const controller = (type: string, key: number, bus: number, slot = ''): string =>
  `<device xsi:type="${type}"><key>${key}</key>${slot}<busNumber>${bus}</busNumber></device>`;
const slot = (number: number): string =>
  `<slotInfo xsi:type="VirtualDevicePciBusSlotInfo"><pciSlotNumber>${number}</pciSlotNumber></slotInfo>`;
const disk = (key: number, controllerKey: number, unit: number): string =>
  `<device xsi:type="VirtualDisk"><key>${key}</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo">` +
  `<fileName>[old] web/web.vmdk</fileName><diskMode>persistent</diskMode><uuid>6000C29f</uuid></backing>` +
  `<controllerKey>${controllerKey}</controllerKey><unitNumber>${unit}</unitNumber><capacityInKB>1024</capacityInKB></device>`;

const captured = (devices: string, rest = ''): string =>
  `<val xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">` +
  `<name>web &amp; co</name><version>vmx-19</version><uuid>4207-old</uuid><instanceUuid>5007-old</instanceUuid>` +
  `<guestId>rhel9_64Guest</guestId><annotation>of &lt;us&gt;</annotation><files><vmPathName>[old] web/web.vmx</vmPathName></files>` +
  `<flags><diskUuidEnabled>true</diskUuidEnabled><snapshotLocked>true</snapshotLocked></flags>` +
  `<hardware><numCPU>4</numCPU><numCoresPerSocket>2</numCoresPerSocket><memoryMB>8192</memoryMB>${devices}</hardware>` +
  `<extraConfig xsi:type="OptionValue"><key>guestinfo.password</key><value xsi:type="xsd:string">secret</value></extraConfig>` +
  `<extraConfig xsi:type="OptionValue"><key>disk.EnableUUID</key><value xsi:type="xsd:string">TRUE</value></extraConfig>` +
  `<bootOptions><efiSecureBootEnabled>true</efiSecureBootEnabled></bootOptions><firmware>efi</firmware>${rest}</val>`;

const machine = (labels: readonly string[], changed: Partial<NewMachine> = {}): NewMachine => ({
  ...{ name: 'web-restored', file: '[new] web/web.vmx', nvramFile: 'web.nvram', network: null },
  disks: labels.map((label) => ({ label, file: `[new] web/${label.replace(':', '-')}.vmdk`, capacityBytes: 1536 })),
  ...changed,
});

const specOf = (xml: string, wanted: NewMachine) =>
  machineSpec(parseSoapXml(xml, 'the captured configuration'), wanted);

describe('the machine that a point becomes', () => {
  it('is what the old one was, in the order of the WSDL, without its identity and its settings', () => {
    const devices = controller('ParaVirtualSCSIController', 1000, 0, slot(160)) + disk(2000, 1000, 0);
    const { spec, leftOut } = specOf(captured(devices), machine(['scsi0:0']));
    const order =
      /^<config><name>web-restored<.*<version>vmx-19<.*<guestId>.*<annotation>of &lt;us&gt;<.*<files>.*<flags>.*<numCPUs>4<.*<numCoresPerSocket>2<.*<memoryMB>8192<.*<deviceChange>.*<extraConfig .*<bootOptions>.*<firmware>efi</;
    expect(spec).toMatch(order);
    expect(spec).not.toMatch(/old|secret|6000C29f|snapshotLocked/);
    expect(spec).toContain('<key>nvram</key><value xsi:type="xsd:string">web.nvram</value>');
    expect(spec).toContain(
      '<device xsi:type="ParaVirtualSCSIController"><key>1000</key><slotInfo xsi:type="VirtualDevicePciBusSlotInfo"><pciSlotNumber>160</pciSlotNumber></slotInfo><busNumber>0</busNumber><sharedBus>noSharing</sharedBus></device>',
    );
    expect(spec).toContain(
      '<controllerKey>1000</controllerKey><unitNumber>0</unitNumber><capacityInKB>1</capacityInKB><capacityInBytes>1536</capacityInBytes>',
    );
    expect(leftOut).toEqual([]);
  });

  it.each([
    ['VirtualAHCIController', 15_000, 'sata0:3'],
    ['VirtualNVMEController', 31_000, 'nvme0:3'],
    ['VirtualLsiLogicSASController', 1000, 'scsi0:3'],
  ])('keeps disks at a %s', (type, key, label) => {
    const { spec } = specOf(captured(controller(type, key, 0) + disk(9, key, 3)), machine([label]));
    expect(spec).toContain(`<device xsi:type="${type}"><key>${key}</key><busNumber>0</busNumber>`);
    expect(spec).toContain(`<controllerKey>${key}</controllerKey><unitNumber>3</unitNumber>`);
  });

  it('uses the IDE controllers that every machine has', () => {
    const { spec } = specOf(
      captured(controller('VirtualIDEController', 201, 1) + disk(9, 201, 0)),
      machine(['ide1:0']),
    );
    expect(spec).not.toContain('VirtualIDEController');
    expect(spec).toContain('<controllerKey>201</controllerKey>');
  });

  it('has no disk that the point leaves out, and no controller for it', () => {
    const devices = [0, 1].map(
      (bus) => controller('ParaVirtualSCSIController', 1000 + bus, bus) + disk(2000 + bus, 1000 + bus, 0),
    );
    const { spec } = specOf(captured(devices.join('')), machine(['scsi1:0']));
    expect(spec.match(/xsi:type="(ParaVirtualSCSIController|VirtualDisk)"/g)).toHaveLength(2);
    expect(spec).toContain('<key>1001</key>');
  });

  it('says what the old one had and it has not', () => {
    const others = ['VirtualTPM', 'VirtualPCIPassthrough', 'VirtualVmxnet3', 'VirtualE1000', 'VirtualPS2Controller'];
    const devices = others.map((type, i) => `<device xsi:type="${type}"><key>${i}</key></device>`).join('');
    const { leftOut } = specOf(captured(devices, '<keyId><keyId>k</keyId></keyId>'), machine([], { nvramFile: null }));
    expect(leftOut).toEqual([
      'its 2 network cards: --network connects them',
      'VirtualPCIPassthrough',
      expect.stringMatching(/^its UEFI variables/),
      expect.stringMatching(/^its virtual TPM/),
      expect.stringMatching(/^its encryption/),
    ]);
  });

  it('has its network cards in their slots where it is connected, with addresses of their own', () => {
    const card = `<device xsi:type="VirtualVmxnet3"><key>4000</key>${slot(192)}<macAddress>00:50:56:aa:bb:cc</macAddress></device>`;
    const network = {
      kind: 'distributed',
      switchUuid: '50 0a',
      portgroupKey: 'dvportgroup-9',
      ref: { type: 'Network', id: 'n' },
    } as const;
    const { spec } = specOf(captured(card), machine([], { network }));
    expect(spec).toMatch(
      /VirtualVmxnet3.*<switchUuid>50 0a<.*<portgroupKey>dvportgroup-9<.*<connectable>.*<pciSlotNumber>192<.*<addressType>generated</,
    );
    expect(spec).not.toContain('00:50:56');
  });

  it('is none where it is not known what a disk is attached to', () => {
    const devices = controller('VirtualFutureController', 1, 0) + disk(9, 1, 0);
    expect(() => specOf(captured(devices), machine(['disk-9']))).toThrow(ConfigurationUnusable);
    expect(() => specOf(captured(''), machine(['scsi0:0']))).toThrow(/does not say where disk scsi0:0 is attached/);
  });
});

it('the descriptor of an uploaded disk names its flat file, all sectors of it', () => {
  const asked = {
    flatFile: 'scsi0-0-flat.vmdk',
    capacityBytes: 1025,
    bus: 'scsi',
    hardwareVersion: 'vmx-19',
    contentId: '0badc0de',
  };
  const text = writeDescriptor(asked);
  expect(readDescriptor(text)).toEqual({ file: 'scsi0-0-flat.vmdk', bytes: 3 * 512 });
  expect(text).toMatch(/CID=0badc0de\n[\s\S]*ddb\.adapterType = "lsilogic"[\s\S]*ddb\.virtualHWVersion = "19"/);
  expect(writeDescriptor({ ...asked, bus: 'ide', hardwareVersion: null })).toMatch(/adapterType = "ide"/);
});
