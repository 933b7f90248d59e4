import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { StateDiskFull, StateUnusable } from '../../../agent/state/errors.ts';
import { makeStateFolder, stateError } from '../../../agent/state/state-folder.ts';
import { KeyFileUnusable } from '../../../crypto/errors.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-state-'));
});
afterEach(() => rm(folder, { recursive: true }));

const saidBySystem = (code: string) => Object.assign(new Error(`${code}: write`), { code, syscall: 'write' });

it('makes a folder for the owner alone, and closes one that is open to others', async () => {
  const inner = join(folder, 'a/b');
  makeStateFolder(inner);
  expect((await stat(inner)).mode & 0o777).toBe(0o700);
  const open = join(folder, 'open');
  await mkdir(open, { mode: 0o755 });
  makeStateFolder(open);
  expect((await stat(open)).mode & 0o777).toBe(0o700);
});

it('says that something else is in the way', async () => {
  await writeFile(join(folder, 'file'), '');
  expect(() => makeStateFolder(join(folder, 'file'))).toThrow(StateUnusable);
  expect(() => makeStateFolder(join(folder, 'file/inner'))).toThrow(/is not a folder/);
});

it.each(['ENOSPC', 'EDQUOT'])('%s is a full disk, also under a key file', (code) => {
  expect(stateError(saidBySystem(code), folder)).toBeInstanceOf(StateDiskFull);
  const keyFile = new KeyFileUnusable('key file', { cause: saidBySystem(code) });
  expect(stateError(keyFile, folder)).toBeInstanceOf(StateDiskFull);
});

it.each(['EACCES', 'EROFS', 'EIO'])('%s is a folder that can not be used', (code) => {
  expect(stateError(saidBySystem(code), folder)).toBeInstanceOf(StateUnusable);
});

it('leaves every other error as it is', () => {
  for (const error of [new Error('x'), saidBySystem('EMFILE'), new KeyFileUnusable('is open to others'), null])
    expect(stateError(error, folder)).toBe(error);
});
