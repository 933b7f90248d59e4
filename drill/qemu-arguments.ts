import type { DiskBus, DrillOptions, Firmware } from './drill.ts';

/** How QEMU is started for a drill: with what the machine needs to boot, and nothing that leads out of it. */

export interface QemuPlan {
  readonly name: string;
  readonly options: DrillOptions;
  readonly firmware: { readonly kind: Firmware; readonly code: string; readonly variables: string } | null;
  /** qcow2 overlays, the boot disk first. */
  readonly overlays: readonly string[];
  readonly sockets: {
    readonly serial: string;
    readonly firmware: string;
    readonly qmp: string;
    readonly agent: string;
    /** Of the isolated network; null: no network card at all. */
    readonly network: string | null;
  };
  /** 12 hex digits. */
  readonly macAddress: string;
}

/** Named in the event that tells when the guest agent opens its port; a port without an id has no such event. */
export const agentPortId = 'agent0';

/** What the process may not do is refused by the kernel (seccomp), should a guest ever take QEMU over. */
const sandbox = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
/** x86-64-v2, which current distributions are built for; `max` takes twice the time to boot without hardware support. */
const emulatedCpu = 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf_lm';

export function qemuArguments({ name, options, firmware, overlays, sockets, macAddress }: QemuPlan): readonly string[] {
  const isKvm = options.accelerator === 'kvm';
  return [
    ...['-name', `drill-${name.replace(/[^A-Za-z0-9._-]/g, '_').slice(0, 40)}`, '-nodefaults', '-no-user-config'],
    ...['-machine', 'q35', '-accel', isKvm ? 'kvm' : 'tcg,thread=multi', '-cpu', isKvm ? 'host' : emulatedCpu],
    ...['-m', `${options.memoryMiB}`, '-smp', `${options.cpus}`, '-display', 'none', '-vga', 'std'],
    // It starts paused, so that nothing happens unwatched. A reset stands still, too, and its last screen can be seen.
    ...['-S', '-action', 'reboot=shutdown,shutdown=pause,panic=pause', '-device', 'pvpanic', '-sandbox', sandbox],
    ...['-rtc', 'base=utc', '-object', 'rng-random,id=rng,filename=/dev/urandom', '-device', 'virtio-rng-pci,rng=rng'],
    ...(firmware === null ? [] : uefi(firmware)),
    ...overlays.flatMap((path, index) => disk(path, index, options.diskBus)),
    ...['-chardev', `socket,id=serial,path=${quoted(sockets.serial)}`, '-serial', 'chardev:serial'],
    ...['-chardev', `socket,id=firmware,path=${quoted(sockets.firmware)}`],
    ...['-device', 'isa-debugcon,iobase=0x402,chardev=firmware'],
    ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=agent,path=${quoted(sockets.agent)},server=on,wait=off`],
    ...['-device', `virtserialport,id=${agentPortId},chardev=agent,name=org.qemu.guest_agent.0`],
    ...['-qmp', `unix:${quoted(sockets.qmp)},server=on,wait=off`],
    ...(sockets.network === null ? ['-nic', 'none'] : network(sockets.network, macAddress)),
  ];
}

function uefi({ code, variables }: { readonly code: string; readonly variables: string }): readonly string[] {
  return [
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${quoted(code)}`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${quoted(variables)}`],
  ];
}

function disk(path: string, index: number, bus: DiskBus): readonly string[] {
  const node = {
    driver: 'qcow2',
    'node-name': `disk${index}`,
    discard: 'unmap',
    // The overlay is thrown away: no flush has to reach the host's disk.
    cache: { 'no-flush': true },
    file: { driver: 'file', filename: path, cache: { 'no-flush': true } },
  };
  const place = `drive=disk${index},serial=disk${index},bootindex=${index + 1}`;
  const devices = {
    virtio: ['-device', `virtio-blk-pci,${place}`],
    sata: ['-device', `ide-hd,bus=ide.${index},${place}`],
    scsi: [...(index === 0 ? ['-device', 'virtio-scsi-pci,id=scsi'] : []), '-device', `scsi-hd,bus=scsi.0,${place}`],
  };
  return ['-blockdev', JSON.stringify(node), ...devices[bus]];
}

function network(socket: string, macAddress: string): readonly string[] {
  const mac = macAddress.match(/../g)?.join(':');
  return [
    ...['-netdev', `stream,id=net,server=off,addr.type=unix,addr.path=${quoted(socket)}`],
    ...['-device', `virtio-net-pci,netdev=net,mac=${mac}`],
  ];
}

/** QEMU's own way to say a comma. */
function quoted(path: string): string {
  return path.replaceAll(',', ',,');
}
