import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { ListOptions, StorageTarget } from '../../storage-targets/storage-target.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { storageTargetContract } from '../contract/storage-target.ts';
import { timesTried } from '../lanes/quick.ts';
import { newDirectory } from './new-directory.ts';

const never = new AbortController().signal;
const put = (target: StorageTarget, name: string, bytes = new TextEncoder().encode(name)) =>
  target.putIfAbsent(name, bytes, { sha256: new Uint8Array(createHash('sha256').update(bytes).digest()) }, never);

async function names(target: StorageTarget, prefix: string, options: ListOptions = {}): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of target.list(prefix, options, never)) found.push(name);
  return found;
}

const code = (doing: Promise<unknown>) =>
  doing.then(
    () => 'resolved',
    (error: Error & { code?: string }) => error.code ?? error.message,
  );

storageTargetContract({
  name: 'a directory',
  open: async () => openFilesystemTarget({ directory: await newDirectory() }),
  lacks: { objectLock: true },
});

storageTargetContract({
  name: 'a directory with every wrapper around it',
  open: async () =>
    wrapTarget(await openFilesystemTarget({ directory: await newDirectory() }), {
      inFlightMax: 8,
      uploadBytesPerSecond: 1e9,
      downloadBytesPerSecond: 1e9,
    }).target,
  lacks: { objectLock: true },
});

describe('a directory', () => {
  let directory: string;
  let target: StorageTarget;
  beforeEach(async () => {
    directory = await newDirectory();
    target = await openFilesystemTarget({ directory });
  });

  it('lists any set of names as a sorted array would', async () => {
    const part = fc.string({ unit: fc.constantFrom('a', 'b', '-', '.', '0', '_'), minLength: 1, maxLength: 3 });
    const name = fc
      .array(
        part.filter((text) => text !== '.' && text !== '..'),
        { minLength: 1, maxLength: 3 },
      )
      .map((parts) => parts.join('/'));
    const folders = (text: string) => text.split('/').map((_, end, parts) => parts.slice(0, end).join('/'));
    const objects = fc
      .uniqueArray(name, { maxLength: 25 })
      .map((all) => all.filter((text) => !folders(text).some((folder) => all.includes(folder))));
    const anywhere = fc.oneof(name, fc.constant(''));
    await fc.assert(
      fc.asyncProperty(
        objects,
        anywhere,
        anywhere,
        fc.option(fc.nat(30), { nil: undefined }),
        async (all, prefix, startAfter, limit) => {
          const fresh = await newDirectory();
          const own = await openFilesystemTarget({ directory: fresh });
          for (const each of all) await put(own, each);
          const expected = all.filter((each) => each.startsWith(prefix) && each > startAfter).sort();
          const options = { startAfter, ...(limit !== undefined && { limit }) };
          expect(await names(own, prefix, options)).toEqual(expected.slice(0, limit));
          await rm(fresh, { recursive: true });
        },
      ),
      { numRuns: timesTried(60) },
    );
  });

  it('lets exactly one of two processes win, and nothing unfinished is ever listed', async () => {
    const other = await openFilesystemTarget({ directory });
    for (let round = 0; round < 20; round++) {
      const bytes = [0, 1].map((value) => new Uint8Array(200_000).fill(value));
      const outcomes = await Promise.all([
        code(put(target, `race/${round}`, bytes[0])),
        code(put(other, `race/${round}`, bytes[1])),
        names(other, '').then(() => 'listed'),
      ]);
      expect(outcomes.slice(0, 2).sort()).toEqual(['OBJECT_EXISTS', 'resolved']);
      const winner = outcomes[0] === 'resolved' ? bytes[0] : bytes[1];
      expect(await target.get(`race/${round}`, null, never)).toEqual(winner);
    }
    expect(await readdir(join(directory, '.incoming~'))).toEqual([]);
  });

  it('removes what a killed process left behind, but not what may still be written', async () => {
    await put(target, 'a');
    const [old, fresh] = ['old', 'fresh'].map((name) => join(directory, '.incoming~', name));
    for (const path of [old, fresh]) await writeFile(path ?? '', 'half of an object');
    await utimes(old ?? '', new Date(), new Date(Date.now() - 2 * 60 * 60 * 1000));
    await openFilesystemTarget({ directory });
    expect(await readdir(join(directory, '.incoming~'))).toEqual(['fresh']);
    expect(await names(target, '')).toEqual(['a']);
  });

  it('passes over files that are none of ours', async () => {
    await put(target, 'ours/a');
    await writeFile(join(directory, 'README'), 'not an object name');
    await mkdir(join(directory, 'lost+found'));
    await symlink('/etc/passwd', join(directory, 'ours', 'link'));
    expect(await names(target, '')).toEqual(['ours/a']);
  });

  it('refuses a name that runs through an object, or that is a folder', async () => {
    await put(target, 'a');
    await put(target, 'b/c');
    expect(await code(put(target, 'a/b'))).toBe('REQUEST_REFUSED');
    expect(await code(put(target, 'b'))).toBe('REQUEST_REFUSED');
    expect(await code(target.get('b', null, never))).toBe('OBJECT_NOT_FOUND');
    expect(await code(target.head('b', never))).toBe('OBJECT_NOT_FOUND');
  });

  it('that is missing, or goes missing, is BucketNotFound in every operation', async () => {
    expect(await code(openFilesystemTarget({ directory: join(directory, 'missing') }))).toBe('BUCKET_NOT_FOUND');
    await writeFile(join(directory, 'file'), '');
    expect(await code(openFilesystemTarget({ directory: join(directory, 'file') }))).toBe('BUCKET_NOT_FOUND');
    await rm(directory, { recursive: true });
    const operations = [
      put(target, 'x/y'),
      target.get('x', null, never),
      target.head('x', never),
      names(target, 'x/'),
      names(target, ''),
      target.now(never),
      target.delete(['x'], never),
    ];
    expect(await Promise.all(operations.map(code))).toEqual(operations.map(() => 'BUCKET_NOT_FOUND'));
  });

  it('whose folder was removed meanwhile makes it anew at the next try', async () => {
    await put(target, 'x/1');
    await rm(join(directory, 'x'), { recursive: true });
    expect(await code(put(target, 'x/2'))).toBe('STORE_UNAVAILABLE');
    expect(await code(put(target, 'x/2'))).toBe('resolved');
  });
});

const mounts = await promisify(execFile)('unshare', ['-rm', 'true']).then(
  () => null,
  () => 'needs unshare and the right to mount',
);

describe.skipIf(mounts !== null)(mounts ?? 'a directory on another file system', () => {
  const module = join(import.meta.dirname, '../../storage-targets/filesystem.ts');
  const script = `
    const { openFilesystemTarget } = await import(${JSON.stringify(module)});
    const { createHash } = await import('node:crypto');
    const { readdirSync } = await import('node:fs');
    const target = await openFilesystemTarget({ directory: process.argv[1] });
    const signal = new AbortController().signal;
    const bytes = new Uint8Array(3_000_000);
    const put = (name) => target.putIfAbsent(name, bytes, { sha256: createHash('sha256').update(bytes).digest() }, signal);
    console.log(await put('a').then(() => 'resolved', (error) => error.code));
    console.log(readdirSync(process.argv[1] + '/.incoming~').length);`;

  /** Runs the script with a memory file system mounted on a directory of its own; the mount is gone with the process. */
  async function putOn(mountOptions: string, before = ''): Promise<string[]> {
    const directory = await newDirectory();
    const command = `mount -t tmpfs -o ${mountOptions} none "$1" && mkdir "$1/.incoming~" ${before} && exec "$2" --input-type=module -e "$3" "$1"`;
    const args = ['-rm', 'sh', '-c', command, 'sh', directory, process.execPath, script];
    const { stdout } = await promisify(execFile)('unshare', args);
    return stdout.trim().split('\n');
  }

  it('that is full is QuotaExceeded, and the unfinished file is gone', async () => {
    expect(await putOn('size=1m')).toEqual(['QUOTA_EXCEEDED', '0']);
    expect(await putOn('size=16m')).toEqual(['resolved', '0']);
  });

  it('that is mounted read-only is AccessDenied', async () => {
    expect(await putOn('size=16m', '&& mount -o remount,ro "$1"')).toEqual(['ACCESS_DENIED', '0']);
  });
});
