import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDurableFile, makeDurableFolder, replaceDurableFile } from '../../agent/durable-files.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'failkit-durable-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('durable files', () => {
  it('are made with all folders above them, for their owner alone', () => {
    makeDurableFolder(join(folder, 'a/b/c'));
    makeDurableFolder(join(folder, 'a/b/c'));
    expect(createDurableFile(join(folder, 'a/b/c/file'), 'content')).toBe(true);
    expect(statSync(join(folder, 'a')).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, 'a/b/c/file')).mode & 0o777).toBe(0o600);
  });

  it('never take a name from another file, and leave nothing behind', () => {
    writeFileSync(join(folder, 'file'), 'first');
    expect(createDurableFile(join(folder, 'file'), 'second')).toBe(false);
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('first');
    expect(readdirSync(folder)).toEqual(['file']);
  });

  it('are replaced as a whole', () => {
    writeFileSync(join(folder, 'file'), 'a longer first');
    replaceDurableFile(join(folder, 'file'), 'second');
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('second');
    expect(readdirSync(folder)).toEqual(['file']);
  });
});
