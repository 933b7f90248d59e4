import type { DrillFinding, FindingCode } from './drill.ts';

/** What firmwares, boot loaders, kernels and initial memory disks print when something goes well, or does not. */

/** The firmware gives the machine to what is on the disk. */
export const bootLoaderStarted =
  /Booting from [0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}|BdsDxe: starting Boot\w+ "(?!EFI Internal Shell)|\[Bds\]Booting/;

export const kernelStarted = /Linux version \d\S*|Copyright \(c\) [^\n]*The FreeBSD Project|OpenBSD \d+\.\d+ \(/;

interface Sign {
  readonly code: FindingCode;
  readonly seen: RegExp;
  readonly what: string;
}

const firmwareSigns: readonly Sign[] = [
  {
    code: 'NO_BOOTABLE_DEVICE',
    seen: /No bootable device|BdsDxe: No bootable option or device was found|UEFI Interactive Shell/,
    what: 'the firmware found nothing that it can boot',
  },
];

/** The first that is seen is the reason: what follows it is mostly its consequence. */
const serialSigns: readonly Sign[] = [
  ...firmwareSigns,
  {
    code: 'KERNEL_NOT_LOADED',
    seen: /Invalid or corrupt kernel image|No DEFAULT or UI configuration|Could not find kernel image|error: (?:invalid magic number|invalid arch-dependent ELF magic|you need to load the kernel first|file `(?![^']*(?:\.pf2|\.mo|\/locale\/[^']*)')[^']*' not found|no such device|unknown filesystem)|grub rescue>|Missing operating system|System halted/,
    what: 'the boot loader could not load a kernel',
  },
  {
    code: 'ROOT_NOT_MOUNTED',
    seen: /Unable to mount root fs|Failed to mount \S+ as root file system|ALERT!\s+\S+ does not exist|dracut-initqueue[^\n]*timeout|Gave up waiting for root|\(initramfs\)/,
    what: 'the kernel started, and the root file system could not be mounted',
  },
  {
    code: 'KERNEL_PANIC',
    seen: /Kernel panic - not syncing(?!: VFS: Unable to mount root)/,
    what: 'the kernel panicked',
  },
  {
    code: 'EMERGENCY_MODE',
    seen: /You are in (?:emergency|rescue) mode|Give root password for maintenance|Entering emergency mode|Cannot open access to console, the root account is locked/,
    what: 'the machine gave its start up and asks for maintenance',
  },
  {
    code: 'FILE_SYSTEM_ERRORS',
    seen: /EXT4-fs error \(|XFS \([^)]*\): (?:Corruption|Metadata corruption)|BTRFS (?:error|critical)[^\n]*(?:corrupt|checksum)/,
    what: 'the kernel found a damaged file system',
  },
];

/** The failure that the end of the serial console or of the firmware's own log shows; null while all is well. */
export function failureIn(tail: string, of: 'serial' | 'firmware'): DrillFinding | null {
  const signs = of === 'serial' ? serialSigns : firmwareSigns;
  const found = signs
    .map(({ code, seen, what }) => ({ code, what, match: seen.exec(tail) }))
    .filter(({ match }) => match !== null)
    .sort((a, b) => (a.match?.index ?? 0) - (b.match?.index ?? 0))[0];
  if (found?.match === undefined || found.match === null) return null;
  return { code: found.code, what: `${found.what}: ${lineAt(tail, found.match.index)}` };
}

function lineAt(text: string, index: number): string {
  const start = text.lastIndexOf('\n', index) + 1;
  const end = text.indexOf('\n', index);
  return text.slice(start, end < 0 ? undefined : end).trim();
}
