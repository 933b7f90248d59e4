import type { MachineShape } from './new-definition.ts';
import type { RestoredMachine } from './restored-machine.ts';

/** A script that starts a restored machine with nothing but QEMU: no network, its screen on VNC on loopback, its serial port on the terminal. */

/** For a point that holds no definition. */
export const plainShape: MachineShape = {
  machineType: null,
  architecture: 'x86_64',
  memoryMiB: 2048,
  processors: 2,
  loader: null,
  buses: new Map(),
};

const deviceByBus: Readonly<Record<string, string>> = {
  virtio: 'virtio-blk-pci',
  scsi: 'scsi-hd',
  sata: 'ide-hd',
  ide: 'ide-hd',
  usb: 'usb-storage',
};

export function qemuScript({ name, disks, nvram }: RestoredMachine, shape: MachineShape): string {
  const options = [
    ['-name', `guest=${name.replaceAll(',', ',,')}`],
    // KVM where the host has it; a further -machine accel=… overrides it.
    ['-machine', `${shape.machineType ?? 'q35'},accel=kvm:tcg`],
    // The best that there is: distributions of today do not start on QEMU's default.
    ['-cpu', 'max'],
    ['-m', `${shape.memoryMiB}M`, '-smp', String(shape.processors)],
    ...firmware(shape.loader, nvram),
    ...controllers(disks.map(({ label }) => shape.buses.get(label) ?? 'virtio')),
    ...disks.flatMap(({ label, path, format }, i) => [
      [
        '-blockdev',
        JSON.stringify({
          driver: format,
          'node-name': `disk${i}`,
          discard: 'unmap',
          file: { driver: 'file', filename: path },
        }),
      ],
      [
        '-device',
        `${deviceByBus[shape.buses.get(label) ?? 'virtio'] ?? 'virtio-blk-pci'},drive=disk${i},bootindex=${i + 1}`,
      ],
    ]),
    ['-nic', 'none', '-vnc', '127.0.0.1:0,to=99', '-serial', 'mon:stdio'],
  ];
  const lines = options.map((words) => `  ${words.map(quoted).join(' ')}`);
  return `#!/bin/sh\n# Starts ${name.replaceAll(/[^ -~]/g, '?')} from its restored disks; what it writes is written to them.\nexec ${quoted(`qemu-system-${shape.architecture}`)} \\\n${lines.join(' \\\n')} "$@"\n`;
}

function controllers(buses: readonly string[]): string[][] {
  const byBus = { scsi: 'virtio-scsi-pci', usb: 'qemu-xhci' };
  return Object.entries(byBus).flatMap(([bus, device]) => (buses.includes(bus) ? [['-device', device]] : []));
}

function firmware(loader: string | null, nvram: string | null): string[][] {
  if (loader === null) return [];
  const drive = (unit: number, file: string, rest: string): string =>
    `if=pflash,format=raw,unit=${unit},file=${file.replaceAll(',', ',,')}${rest}`;
  const code = ['-drive', drive(0, loader, ',readonly=on')];
  return nvram === null ? [code] : [code, ['-drive', drive(1, nvram, '')]];
}

/** For the shell. */
function quoted(word: string): string {
  return /^[A-Za-z0-9_./:=,+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
