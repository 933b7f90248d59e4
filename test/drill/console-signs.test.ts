import { expect, test } from 'vitest';
import { bootLoaderStarted, failureIn, kernelStarted } from '../../drill/console-signs.ts';

test.for([
  ['NO_BOOTABLE_DEVICE', 'Boot failed: not a bootable disk\n\nNo bootable device.\n'],
  ['NO_BOOTABLE_DEVICE', 'BdsDxe: No bootable option or device was found.\r\n'],
  ['KERNEL_NOT_LOADED', "error: file `/boot/vmlinuz-6.1' not found.\ngrub rescue> "],
  ['KERNEL_NOT_LOADED', 'Invalid or corrupt kernel image.\nboot: '],
  ['ROOT_NOT_MOUNTED', 'ALERT!  UUID=0b1c-22 does not exist.  Dropping to a shell!\n'],
  [
    'ROOT_NOT_MOUNTED',
    'mount: mounting /dev/vda2 on /root failed\nFailed to mount /dev/vda2 as root file system.\n(initramfs) ',
  ],
  [
    'ROOT_NOT_MOUNTED',
    '[  193.2] dracut-initqueue[389]: Warning: dracut-initqueue: timeout, still waiting for devices\n',
  ],
  // The panic is the consequence.
  ['ROOT_NOT_MOUNTED', 'Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n'],
  ['KERNEL_PANIC', '[    6.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000\n'],
  ['EMERGENCY_MODE', 'You are in emergency mode. After logging in, type "journalctl -xb"\n'],
  ['FILE_SYSTEM_ERRORS', '[ 9.1] EXT4-fs error (device vda2): ext4_lookup:1849: inode #2: bad entry\n'],
  ['FILE_SYSTEM_ERRORS', '[ 9.1] XFS (dm-0): Metadata corruption detected at xfs_agf_read_verify\n'],
] as const)('%s is what the console shows with: %s', ([code, text]) => {
  expect(failureIn(`[    4.1] Run /init as init process\n${text}`, 'serial')).toMatchObject({ code });
});

test('a start that goes well shows no failure', () => {
  const text = `Booting from Hard Disk...
Booting from 0000:7c00
error: file \`/boot/grub/fonts/unicode.pf2' not found.
error: file \`/boot/grub/locale/en.gmo' not found.
[    0.000000] Linux version 6.1.0-57-cloud-amd64 (debian-kernel@lists.debian.org)
[    4.745066] EXT4-fs (vda2): recovery complete
[    4.745066] EXT4-fs (vda2): mounted filesystem with ordered data mode. Quota mode: none.
[    9.1] systemd[1]: Reached target emergency.target - not started
guest login: `;
  expect(failureIn(text, 'serial')).toBeNull();
  expect(bootLoaderStarted.test(text)).toBe(true);
  expect(kernelStarted.test(text)).toBe(true);
});

test('only the firmware can say that there is nothing to boot, and the shell inside it is no boot loader', () => {
  expect(failureIn('Kernel panic - not syncing: x', 'firmware')).toBeNull();
  expect(bootLoaderStarted.test('BdsDxe: starting Boot0002 "EFI Internal Shell" from Fv(7CB8)')).toBe(false);
  expect(bootLoaderStarted.test('BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot')).toBe(true);
});

test('the finding has the line that shows it', () => {
  const what = failureIn('one\n[ 6.5] Kernel panic - not syncing: Fatal exception\nthree', 'serial')?.what;
  expect(what).toBe('the kernel panicked: [ 6.5] Kernel panic - not syncing: Fatal exception');
});
