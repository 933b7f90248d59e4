import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it, vi } from 'vitest';
import { loadConfig } from '../../agent/config/load-config.ts';
import { fileStateNow } from '../../agent/file-state.ts';
import { LimitsWatch } from '../../agent/watch-limits.ts';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';

const folder = mkdtempSync(join(tmpdir(), 'failkit-limits-'));
const file = join(folder, 'failkit.yaml');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function configText(limits: string): string {
  return `repository: { target: filesystem, directory: /x }\nkeys: { provider: local-key, file: k }\n${limits}`;
}

async function watching() {
  writeFileSync(file, configText('limits: { uploadMbitPerSecond: 8 }'));
  const limits = { upload: new Bandwidth(1_000_000), download: new Bandwidth(null), read: new Bandwidth(null) };
  const said: string[] = [];
  const reload = vi.fn(() => loadConfig(file, {}));
  const loadedAs = fileStateNow(file);
  const watch = new LimitsWatch({ file, loadedAs, reload, limits, say: (line) => said.push(line) });
  await watch.look();
  const rates = () => [limits.upload, limits.download, limits.read].map(({ bytesPerSecond }) => bytesPerSecond);
  return { watch, said, rates, reload };
}

it('a change is taken over once the file holds still, and told once', async () => {
  const { watch, said, rates } = await watching();
  await watch.look();
  expect(said).toEqual([]);
  writeFileSync(file, configText('limits: { uploadMbitPerSecond: 16, downloadMbitPerSecond: 4, readMiBPerSecond: 2 }'));
  await watch.look();
  expect(rates()).toEqual([1_000_000, null, null]);
  await watch.look();
  expect(rates()).toEqual([2_000_000, 500_000, 2 * 2 ** 20]);
  await watch.look();
  expect(said).toEqual(['the limits are now: upload 1.9 MiB/s, download 488 KiB/s, read 2.0 MiB/s']);
});

it('a file that nobody changed is not read again', async () => {
  const { watch, said, reload } = await watching();
  for (let i = 0; i < 5; i++) await watch.look();
  expect(reload).not.toHaveBeenCalled();
  watch.reread();
  expect(reload).toHaveBeenCalledOnce();
  expect(said).toEqual(['the limits stay as they are: upload 977 KiB/s, download unlimited, read unlimited']);
});

it('a file that takes the place of the old one is a change, too', async () => {
  const { watch, rates } = await watching();
  writeFileSync(`${file}.new`, configText(''));
  renameSync(`${file}.new`, file);
  await watch.look();
  await watch.look();
  expect(rates()).toEqual([null, null, null]);
});

it('a bad edit is told once, with its line, and the old limits stay', async () => {
  const { watch, said, rates } = await watching();
  writeFileSync(file, configText('limits: { uploadMbitPerSecond: fast }'));
  for (let i = 0; i < 5; i++) await watch.look();
  expect(rates()).toEqual([1_000_000, null, null]);
  expect(said).toHaveLength(1);
  expect(said[0]).toContain(`${file}:3: limits.uploadMbitPerSecond`);
  rmSync(file);
  for (let i = 0; i < 5; i++) await watch.look();
  expect(said).toHaveLength(2);
  writeFileSync(file, configText('limits: { uploadMbitPerSecond: 80 }'));
  for (let i = 0; i < 5; i++) await watch.look();
  expect(rates()).toEqual([10_000_000, null, null]);
  expect(said).toHaveLength(3);
});

it('whoever asks for it hears what the limits are, though nothing changed', async () => {
  const { watch, said, rates } = await watching();
  watch.reread();
  expect(said).toEqual(['the limits stay as they are: upload 977 KiB/s, download unlimited, read unlimited']);
  writeFileSync(file, configText('limits: { uploadMbitPerSecond: 16 }'));
  watch.reread();
  expect(rates()).toEqual([2_000_000, null, null]);
  for (let i = 0; i < 3; i++) await watch.look();
  expect(said).toHaveLength(2);
});

it('other settings of the file are not looked at', async () => {
  const { watch, said, rates } = await watching();
  writeFileSync(file, `${configText('limits: { uploadMbitPerSecond: 8, inFlight: 3 }')}\nsegmentMiB: 16`);
  for (let i = 0; i < 3; i++) await watch.look();
  expect(rates()).toEqual([1_000_000, null, null]);
  expect(said).toEqual([]);
});
