import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { DrillHostUnfit } from '../../drill/drill-errors.ts';
import { firmwareByHead, isUefiVariables, prepareUefi } from '../../drill/firmware.ts';

const efiSystem = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const biosBoot = '21686148-6449-6e6f-744e-656564454649';
const linuxData = '0fc63daf-8483-4772-8e79-3d69d8477de4';

test.for([
  ['bios', 'an empty disk', disk({})],
  ['bios', 'an MBR with boot code and an active partition', disk({ bootCode: true, mbr: [[0x80, 0x83]] })],
  ['uefi', 'an MBR with an EFI system partition alone', disk({ mbr: [[0, 0xef]] })],
  [
    'bios',
    'an MBR with both',
    disk({
      bootCode: true,
      mbr: [
        [0x80, 0x83],
        [0, 0xef],
      ],
    }),
  ],
  ['uefi', 'a GPT with an EFI system partition', disk({ mbr: [[0, 0xee]], gpt: [efiSystem, linuxData] })],
  ['uefi', 'the same behind boot code that has nothing to load', disk({ bootCode: true, gpt: [linuxData, efiSystem] })],
  ['bios', 'a GPT that can be booted both ways', disk({ bootCode: true, gpt: [biosBoot, efiSystem] })],
  ['bios', 'a GPT without an EFI system partition', disk({ bootCode: true, gpt: [biosBoot, linuxData] })],
  ['bios', 'a disk of less than two sectors', disk({}).subarray(0, 512)],
] as const)('%s is for %s', ([firmware, , head]) => {
  expect(firmwareByHead(head)).toBe(firmware);
});

test('a GPT that says that it has a billion entries of no size is read within bounds', () => {
  const head = Buffer.from(disk({ gpt: [linuxData] }));
  head.writeUInt32LE(2 ** 30, 512 + 80);
  head.writeUInt32LE(0, 512 + 84);
  expect(firmwareByHead(head)).toBe('bios');
});

test('UEFI variables are known by what is in them', () => {
  const volume = Buffer.alloc(1024);
  volume.write('_FVH', 40);
  expect(isUefiVariables(volume)).toBe(true);
  expect(isUefiVariables(Buffer.from('<domain type="kvm"><os firmware="efi"/></domain>'.repeat(3)))).toBe(false);
  expect(isUefiVariables(Buffer.alloc(10))).toBe(false);
});

test('variables of a size that no firmware here takes are refused', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-firmware-'));
  try {
    await expect(prepareUefi(new Uint8Array(77_777), folder)).rejects.toThrow(DrillHostUnfit);
    await expect(readFile(join(folder, 'uefi-variables.fd'))).rejects.toThrow();
  } finally {
    await rm(folder, { recursive: true });
  }
});

function disk(made: {
  readonly bootCode?: boolean;
  readonly mbr?: readonly (readonly [flag: number, type: number])[];
  readonly gpt?: readonly string[];
}): Uint8Array {
  const head = Buffer.alloc(34 * 512);
  if (made.bootCode) head.fill(0x90, 0, 440);
  for (const [index, [flag, type]] of (made.mbr ?? []).entries()) {
    head[446 + index * 16] = flag;
    head[446 + index * 16 + 4] = type;
  }
  if (made.gpt === undefined) return head;
  head.write('EFI PART', 512);
  head.writeBigUInt64LE(2n, 512 + 72);
  head.writeUInt32LE(128, 512 + 80);
  head.writeUInt32LE(128, 512 + 84);
  for (const [index, guid] of made.gpt.entries()) guidBytes(guid).copy(head, 1024 + index * 128);
  return head;
}

function guidBytes(guid: string): Buffer {
  const [a = '', b = '', c = '', ...rest] = guid.split('-');
  const reversed = [a, b, c].map((part) => Buffer.from(part, 'hex').reverse());
  return Buffer.concat([...reversed, Buffer.from(rest.join(''), 'hex')]);
}
