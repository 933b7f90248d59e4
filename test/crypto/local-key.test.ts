import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KeyFileUnusable } from '../../crypto/errors.ts';
import { createLocalKeyFile, openLocalKey } from '../../crypto/local-key.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-local-key-'));
});
afterAll(() => rm(folder, { recursive: true }));

const never = new AbortController().signal;
let made = 0;
const newPath = () => join(folder, `key-${made++}`);
const newKeyFile = async () => {
  const path = newPath();
  await createLocalKeyFile(path);
  return path;
};
const refusal = async (path: string) => {
  const error = await openLocalKey(path).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(KeyFileUnusable);
  return (error as KeyFileUnusable).message;
};

keyProviderContract({
  name: 'local-key',
  alteredBytesMax: Infinity,
  open: async () => ({ one: await openLocalKey(await newKeyFile()), other: await openLocalKey(await newKeyFile()) }),
});

describe('local key file', () => {
  it('is readable by its owner alone and says which key it holds', async () => {
    const path = newPath();
    const keyId = await createLocalKeyFile(path);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(keyId).toMatch(/^local:[0-9a-f]{16}$/);
    expect(await readFile(path, 'utf8')).toContain(`failkit-local-key 1\nkey-id ${keyId}\nkey `);
    expect((await openLocalKey(path)).keyId).toBe(keyId);
  });

  it('gives the same key each time it is opened', async () => {
    const path = await newKeyFile();
    const { key, wrapped } = await (await openLocalKey(path)).generateDataKey(sampleContext, never);
    using first = key;
    using again = await (await openLocalKey(path)).unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('never overwrites a file', async () => {
    const path = await newKeyFile();
    const before = await readFile(path);
    await expect(createLocalKeyFile(path)).rejects.toThrow(/already exists, and a key is never overwritten/);
    expect(await readFile(path)).toEqual(before);
  });

  it('says that the folder to make it in is missing', async () => {
    await expect(createLocalKeyFile(join(folder, 'absent', 'key'))).rejects.toThrow(/its folder does not exist/);
  });

  it.each([0o640, 0o604, 0o620, 0o610, 0o644, 0o666])('refuses mode %o and says how to mend it', async (mode) => {
    const path = await newKeyFile();
    await chmod(path, mode);
    expect(await refusal(path)).toContain(`run chmod 600 ${path}`);
    await chmod(path, 0o600);
    expect((await openLocalKey(path)).provider).toBe('local-key');
  });

  it('looks at what a symlink points to, not at the link', async () => {
    const [path, link] = [await newKeyFile(), newPath()];
    await symlink(path, link);
    expect((await openLocalKey(link)).provider).toBe('local-key');
    await chmod(path, 0o644);
    expect(await refusal(link)).toContain('open to others (mode 0644)');
  });

  it('says that a file is missing, a folder, a dangling link, or far too large', async () => {
    const [absent, place, link, large] = [newPath(), newPath(), newPath(), newPath()];
    await mkdir(place);
    await symlink(absent, link);
    await writeFile(large, new Uint8Array(100_000), { mode: 0o600 });
    expect(await refusal(absent)).toContain('does not exist');
    expect(await refusal(place)).toContain('not a plain file');
    expect(await refusal(link)).toContain('does not exist');
    expect(await refusal(large)).toContain('100000 bytes');
  });

  it('tolerates comments, blank lines and Windows line ends', async () => {
    const path = await newKeyFile();
    const text = await readFile(path, 'utf8');
    await writeFile(path, `# site 2\n\n${text}\n`.replaceAll('\n', '\r\n'));
    expect((await openLocalKey(path)).provider).toBe('local-key');
  });

  it.each([
    ['empty', () => ''],
    ['of another version', (text: string) => text.replace('failkit-local-key 1', 'failkit-local-key 2')],
    ['without its key id', (text: string) => text.replace(/^key-id .*\n/m, '')],
    ['with a line more', (text: string) => `${text}key AAAA\n`],
    ['with a shorter key', (text: string) => text.replace(/^key (.*)$/m, `key ${Buffer.alloc(31).toString('base64')}`)],
    ['with a longer key', (text: string) => text.replace(/^key (.*)$/m, `key ${Buffer.alloc(33).toString('base64')}`)],
    ['with a key that is not base64', (text: string) => text.replace(/^key ./m, 'key !')],
    ['full of binary', () => '\u0000\u0001\uffff'],
  ])('is refused when %s', async (_, change) => {
    const path = await newKeyFile();
    await writeFile(path, change(await readFile(path, 'utf8')));
    expect(await refusal(path)).toContain('is not a Failkit local key of version 1');
  });

  it('is refused when its key is not the one its key id names', async () => {
    const path = await newKeyFile();
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace(/^key .*$/m, `key ${Buffer.alloc(32, 5).toString('base64')}`));
    expect(await refusal(path)).toContain('is damaged');
  });
});
