import { access, copyFile, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { BackingDisk, Firmware } from './drill.ts';
import { DrillHostUnfit } from './drill-errors.ts';

/** Which firmware a machine needs, and where this host has it. */

const sectorBytes = 512;
const bootCodeBytes = 440;
const headSectors = 34;
const partitionTableAt = 446;
const partitionEntryBytes = 16;
const activeFlag = 0x80;
const efiPartitionType = 0xef;
const gptEntriesMax = 128;
/** As GUIDs stand on disk: the first three fields are little-endian. */
const efiSystemPartition = '28732ac11ff8d211ba4b00a0c93ec93b';
const biosBootPartition = '4861682149646f6e744e656564454649';
/** `_FVH`, at this offset in every UEFI firmware volume, variables included. */
const volumeSignature = '_FVH';
const volumeSignatureAt = 40;

/** Empty variables and the code that belongs to them, by the size of the variables: a store has to fit its code. */
const uefiBuilds = [
  { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', variables: '/usr/share/OVMF/OVMF_VARS_4M.fd' },
  { code: '/usr/share/OVMF/OVMF_CODE.fd', variables: '/usr/share/OVMF/OVMF_VARS.fd' },
  { code: '/usr/share/edk2/ovmf/OVMF_CODE.fd', variables: '/usr/share/edk2/ovmf/OVMF_VARS.fd' },
  { code: '/usr/share/edk2/x64/OVMF_CODE.4m.fd', variables: '/usr/share/edk2/x64/OVMF_VARS.4m.fd' },
  { code: '/usr/share/qemu/ovmf-x86_64-code.bin', variables: '/usr/share/qemu/ovmf-x86_64-vars.bin' },
] as const;

export function isUefiVariables(bytes: Uint8Array): boolean {
  const at = bytes.subarray(volumeSignatureAt, volumeSignatureAt + volumeSignature.length);
  return Buffer.from(at).toString('latin1') === volumeSignature;
}

/** Of the boot disk: UEFI where it has an EFI system partition and nothing that a BIOS could start. */
export async function firmwareOf(disk: BackingDisk, capacityBytes: number, signal: AbortSignal): Promise<Firmware> {
  const head = new Uint8Array(
    Math.min(headSectors * sectorBytes, Math.floor(capacityBytes / sectorBytes) * sectorBytes),
  );
  await disk.read(0, head, signal);
  return firmwareByHead(head);
}

/** `head`: the first 34 sectors. */
export function firmwareByHead(head: Uint8Array): Firmware {
  const hasBootCode = head.subarray(0, bootCodeBytes).some((byte) => byte !== 0);
  const types = gptTypes(head);
  if (types !== null)
    return types.includes(efiSystemPartition) && !(hasBootCode && types.includes(biosBootPartition)) ? 'uefi' : 'bios';
  const entries = [0, 1, 2, 3].map((index) => partitionTableAt + index * partitionEntryBytes);
  const hasEfi = entries.some((at) => head[at + 4] === efiPartitionType);
  const hasActive = entries.some((at) => head[at] === activeFlag);
  return hasEfi && !(hasBootCode && hasActive) ? 'uefi' : 'bios';
}

/** Type GUIDs in hex, or null where there is no GUID partition table. */
function gptTypes(head: Uint8Array): readonly string[] | null {
  const header = Buffer.from(head.buffer, head.byteOffset + sectorBytes, Math.max(0, head.length - sectorBytes));
  if (header.length < sectorBytes || header.toString('latin1', 0, 8) !== 'EFI PART') return null;
  const start = Number(header.readBigUInt64LE(72)) * sectorBytes;
  const count = Math.min(header.readUInt32LE(80), gptEntriesMax);
  const size = header.readUInt32LE(84);
  return Array.from({ length: count }, (_, index) => start + index * size)
    .filter((at) => at + 16 <= head.length)
    .map((at) => Buffer.from(head.subarray(at, at + 16)).toString('hex'));
}

/** Puts variables into `folder` that the machine may write: its own, or empty ones. Throws DrillHostUnfit. */
export async function prepareUefi(
  variables: Uint8Array | null,
  folder: string,
): Promise<{ readonly kind: 'uefi'; readonly code: string; readonly variables: string }> {
  const path = join(folder, 'uefi-variables.fd');
  for (const build of uefiBuilds) {
    if (!(await isThere(build.code)) || !(await isThere(build.variables))) continue;
    const empty = await readFile(build.variables);
    if (variables !== null && variables.length !== empty.length) continue;
    if (variables === null) await copyFile(build.variables, path);
    else await writeFile(path, variables, { mode: 0o600 });
    return { kind: 'uefi', code: build.code, variables: path };
  }
  const looked = [...new Set(uefiBuilds.map(({ code }) => dirname(code)))].join(', ');
  throw new DrillHostUnfit(
    variables === null
      ? `a UEFI machine needs OVMF, and it is not in ${looked}: install ovmf (edk2-ovmf)`
      : `no OVMF in ${looked} takes UEFI variables of ${variables.length} bytes: install ovmf (edk2-ovmf)`,
  );
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
