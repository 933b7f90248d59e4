import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/** Files that Windows 10 wrote, and what docker-explorer published of them: fixtures/vhdx/README.md. */

const archive = join(import.meta.dirname, '../../../fixtures/vhdx/windows-10-differencing.tgz');
export const published = {
  archive: '429ba06c3584feb971f1c7419c62deff237af01997f0f2dedc30942b6c243add',
  'base.vhdx': '768dc97a7e5a34d0d29dc9397b7db2bd4f7cb8a4275978c57602b7613359122a',
  'diff.vhdx': 'c53fac17ed841d35a75818424716a6691cafa52b75938e6eba4c201898e548b5',
  merged: 'a9717baccc52410c8c1ecb3ad096ccdfb842b4a48068b0d86f4191efa3985693',
} as const;

/** By their names. */
export function windowsFiles(): { readonly 'base.vhdx': Buffer; readonly 'diff.vhdx': Buffer } {
  const packed = readFileSync(archive);
  if (sha256(packed) !== published.archive) throw new Error(`${archive} is not what was published`);
  const { 'base.vhdx': base, 'diff.vhdx': diff } = untarred(gunzipSync(packed));
  if (base === undefined || diff === undefined) throw new Error(`${archive} lacks a file`);
  return { 'base.vhdx': base, 'diff.vhdx': diff };
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** By their names without folders. */
function untarred(tar: Buffer): Readonly<Record<string, Buffer>> {
  const files: Record<string, Buffer> = {};
  for (let at = 0; tar[at] !== 0; ) {
    const path = tar.toString('latin1', at, at + 100).replace(/\0.*$/s, '');
    const length = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8);
    files[path.split('/').at(-1) ?? ''] = tar.subarray(at + 512, at + 512 + length);
    at += 512 + Math.ceil(length / 512) * 512;
  }
  return files;
}
