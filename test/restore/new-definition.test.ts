import { describe, expect, it } from 'vitest';
import { childOf, childrenOf, parseXml, textOf } from '../../hypervisors/kvm/libvirt/xml.ts';
import { newDefinition, shapeOf } from '../../restore/definition/new-definition.ts';
import { qemuScript } from '../../restore/definition/qemu-script.ts';

const captured = `<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name><uuid>8a6d2a4e-0000-4000-8000-000000000001</uuid><genid>8a6d2a4e-0000-4000-8000-000000000002</genid>
  <memory unit='KiB'>2097152</memory><vcpu placement='static' cpuset='2-3'>2</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='2'/></cputune><numatune><memory mode='strict' nodeset='0'/></numatune>
  <sysinfo type='smbios'><system><entry name='uuid'>8a6d2a4e-0000-4000-8000-000000000001</entry></system></sysinfo>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram></os>
  <cpu mode='custom' match='exact'><model>Skylake-Server</model><topology sockets='1' dies='1' cores='2' threads='1'/></cpu>
  <devices><emulator>/usr/bin/kvm</emulator>
    <disk type='block' device='disk'><driver name='qemu' type='qcow2' iothread='1'/><source dev='/dev/vg/web' index='1'/><backingStore/>
      <target dev='vda' bus='virtio'/><serial>SER</serial><address type='pci' bus='0x04'/></disk>
    <disk type='file' device='disk'><source file='/images/scratch.qcow2'/><target dev='vdb' bus='scsi'/></disk>
    <disk type='file' device='cdrom'><source file='/iso/install.iso'/><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:aa:bb:cc'/><source bridge='br0'/><target dev='vnet3'/><model type='virtio'/></interface>
    <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source></hostdev>
    <filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>
    <serial type='file'><source path='/var/log/web.serial'/><target port='0'/></serial>
    <channel type='unix'><source mode='bind' path='/run/web.agent'/><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <graphics type='vnc' port='5901' autoport='no' listen='0.0.0.0' passwd='geheim'><listen type='address' address='0.0.0.0'/></graphics>
  </devices>
  <qemu:commandline><qemu:arg value='-object'/><qemu:arg value='secret,id=s,data=geheim'/></qemu:commandline>
</domain>`;
const machine = {
  name: 'web-restored',
  disks: [{ label: 'vda', path: '/restored/a, b.qcow2', format: 'qcow2' as const }],
  nvram: '/restored/vars.fd',
  network: null,
};

/** What only some machines have: each of it means a file, a device, a key or another service of the old host. */
const tied = `<domain type='kvm'>
  <name>db</name><uuid>8a6d2a4e-0000-4000-8000-000000000003</uuid><memory unit='KiB'>1048576</memory>
  <vcpu placement='auto'>2</vcpu><memtune><hard_limit unit='KiB'>9</hard_limit></memtune>
  <blkiotune><device><path>/dev/sda</path><weight>500</weight></device></blkiotune>
  <sysinfo type='fwcfg'><entry name='opt/a' file='/old/ignition'/><entry name='opt/b'>plain</entry></sysinfo>
  <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><acpi><table type='slic'>/old/slic</table></acpi>
    <nvram format='qcow2' template='/usr/share/vars.fd'>/old/nvram</nvram></os>
  <cpu mode='host-passthrough'><numa><cell id='0' cpus='0-1' memory='1048576' memAccess='shared'/></numa></cpu>
  <launchSecurity type='sev'><policy>0x1</policy><dhCert>old-cert</dhCert><session>old-session</session></launchSecurity>
  <devices>
    <disk type='file' device='lun' rawio='yes' sgio='unfiltered'><source file='/old/a'/><target dev='sda' bus='scsi'/><shareable/><transient/></disk>
    <interface type='hostdev' managed='yes'><source><address type='pci' bus='0x3b'/></source><mac address='52:54:00:aa:bb:cc'/>
      <model type='virtio'/><address type='pci' bus='0x07' slot='0x00'/></interface>
    <input type='evdev'><source dev='/old/event3'/></input><input type='tablet' bus='usb'/>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0' persistent_state='yes'><encryption secret='old-secret'/><source type='dir' path='/old/tpm'/></backend></tpm>
    <rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='old-host' service='9'/></backend></rng>
    <audio id='1' type='pulseaudio' serverName='/old/pulse'><input mixingEngine='no'/></audio>
    <video><model type='virtio'><acceleration accel3d='yes' rendernode='/old/render'/></model></video>
    <memory model='nvdimm'><source><path>/old/nvdimm</path></source><target><size>1</size></target></memory>
    <memory model='dimm'><target><size>2</size></target></memory>
    <pstore backend='acpi-erst'><path>/old/pstore</path></pstore>
  </devices></domain>`;

describe('the definition of a restored machine', () => {
  const text = newDefinition(captured, machine);
  const root = parseXml(text, 'it', 'domain');
  const devices = childOf(root, 'devices');

  it('is another machine: name, identities, addresses on the network', () => {
    expect(textOf(childOf(root, 'name'))).toBe('web-restored');
    expect(text).not.toMatch(/8a6d2a4e|52:54:00:aa:bb:cc|id="7"/);
    const uuid = textOf(childOf(root, 'uuid'));
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
    expect(textOf(childOf(root, 'sysinfo', 'system', 'entry'))).toBe(uuid);
  });

  it('has the restored disks, drives without media, and none that the point lacks', () => {
    const disks = childrenOf(devices, 'disk').map((disk) => [
      disk.getAttribute('device'),
      childOf(disk, 'target')?.getAttribute('dev'),
      childOf(disk, 'source')?.getAttribute('file') ?? null,
    ]);
    expect(disks).toEqual([
      ['disk', 'vda', '/restored/a, b.qcow2'],
      ['cdrom', 'sda', null],
    ]);
    expect(textOf(childOf(devices, 'disk', 'serial'))).toBe('SER');
    expect(textOf(childOf(root, 'os', 'nvram'))).toBe('/restored/vars.fd');
  });

  it('takes nothing of the old host along, and no secret', () => {
    expect(text).not.toMatch(
      /geheim|cpuset|Skylake|vcpupin|nodeset|\/dev\/vg|\/srv|0x3b|\/var\/log|\/run\/web|0\.0\.0\.0|br0|usr\/bin\/kvm/,
    );
    expect(childrenOf(devices, 'hostdev')).toEqual([]);
  });

  it('is on no network unless one is named, and then with an address of its own', () => {
    expect(childrenOf(devices, 'interface')).toEqual([]);
    const connected = childOf(
      parseXml(newDefinition(captured, { ...machine, network: 'drill' }), 'it', 'domain'),
      'devices',
    );
    const [card] = childrenOf(connected, 'interface');
    expect(childOf(card ?? null, 'source')?.getAttribute('network')).toBe('drill');
    expect(childOf(card ?? null, 'model')?.getAttribute('type')).toBe('virtio');
    expect(childOf(card ?? null, 'mac')?.getAttribute('address')).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
  });

  it('is tied to nothing of the old host, whatever the machine was', () => {
    const definition = newDefinition(tied, {
      ...machine,
      disks: [{ label: 'sda', path: '/new/a', format: 'raw' }],
      network: 'lab',
    });
    expect(definition).not.toMatch(/old|egd|auto"|memAccess|lun|rawio|sgio|shareable|transient|managed|slic|0x3b/);
    const inside = childOf(parseXml(definition, 'it', 'domain'), 'devices');
    expect(childOf(inside, 'interface', 'address')?.getAttribute('bus')).toBe('0x07');
    expect(childOf(inside, 'tpm', 'backend')?.getAttribute('version')).toBe('2.0');
    expect(childrenOf(inside, 'memory').map((memory) => memory.getAttribute('model'))).toEqual(['dimm']);
    expect(childrenOf(inside, 'input').map((input) => input.getAttribute('type'))).toEqual(['tablet']);
    expect(definition).toContain('<nvram template="/usr/share/vars.fd" format="qcow2">/restored/vars.fd</nvram>');
    expect(definition).toContain('<entry name="opt/b">plain</entry>');
  });

  it('has a script that no name and no bus of a disk breaks', () => {
    const shape = shapeOf(tied.replaceAll("bus='scsi'", "bus='usb'"));
    const disks = [{ label: 'sda', path: '/new/a', format: 'raw' as const }];
    const script = qemuScript({ ...machine, name: 'db,2', disks }, shape);
    expect(script).toContain('-name guest=db,,2');
    expect(script).toContain('-device qemu-xhci');
    expect(script).toContain('-cpu max');
  });

  it('becomes a script for plain QEMU that keeps odd paths whole', () => {
    const script = qemuScript(machine, shapeOf(captured));
    expect(script).toContain('-machine pc-q35-7.2,accel=kvm:tcg');
    expect(script).toContain('-m 2048M -smp 2');
    expect(script).toContain(
      `'{"driver":"qcow2","node-name":"disk0","discard":"unmap","file":{"driver":"file","filename":"/restored/a, b.qcow2"}}'`,
    );
    expect(script).toContain('unit=1,file=/restored/vars.fd');
    expect(script).toContain('-nic none');
  });
});
