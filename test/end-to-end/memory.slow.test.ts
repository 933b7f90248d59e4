import { createCipheriv, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startFailkit } from './failkit-process.ts';

/** P7: what the process takes at most, as the kernel counts it, the program's own 64 MiB included. */
const mebibyte = 2 ** 20;
const promisedBytes = 512 * mebibyte;
const diskBytes = 1536 * mebibyte;
const hasProc = existsSync('/proc/self/status');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-memory-'));
  await mkdir(join(folder, 'bucket'));
  await makeDisk(join(folder, 'disk.raw'));
  await writeFile(
    join(folder, 'failkit.yaml'),
    `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
machines:
  - name: web-1
    source: { type: image, disks: [{ label: system, path: disk.raw }] }
# As many workers as the default allows where there are cores enough.
limits: { workers: 5 }
`,
  );
  const { exitCode } = await startFailkit(['init', '--kit', 'kit'], { folder }).ended;
  expect(exitCode).toBe(0);
}, 300_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

describe.skipIf(!hasProc)('memory of a whole process (needs /proc)', () => {
  it.each([
    ['seed', ['seed']],
    ['sync', ['sync']],
    ['verify', ['verify', '--level', 'full']],
    ['restore', ['restore', 'web-1', '--to', 'restored']],
  ])('%s stays within 512 MiB', async (_, args) => {
    const process = startFailkit(args, { folder });
    const peak = watchPeak(process.pid, process.ended);
    const { exitCode, stderr } = await process.ended;
    expect([exitCode, exitCode === 0 ? '' : stderr]).toEqual([0, '']);
    const peakBytes = await peak;
    expect(peakBytes).toBeGreaterThan(50 * mebibyte);
    expect(peakBytes).toBeLessThanOrEqual(promisedBytes);
  });
});

/** The high-water mark of resident memory, read until the process is gone. */
async function watchPeak(pid: number, ended: Promise<unknown>): Promise<number> {
  let peak = 0;
  let over = false;
  void ended.finally(() => {
    over = true;
  });
  while (!over) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    peak = Math.max(peak, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024);
    await sleep(20);
  }
  return peak;
}

/** Noise, what zstd makes a quarter of, what it makes nothing of, and nothing, in stretches of 1 MiB; the last third is one long run of the third kind. */
async function makeDisk(path: string): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(diskBytes);
  const stream = createCipheriv('aes-256-ctr', randomBytes(32), randomBytes(16));
  const zeros = new Uint8Array(mebibyte);
  for (let at = 0; at < diskBytes; at += mebibyte) {
    const kind = at > diskBytes * (2 / 3) ? 2 : (at / mebibyte) % 4;
    if (kind === 3) continue;
    const random = stream.update(zeros);
    // Each byte is one of four: zstd makes a quarter of it.
    if (kind === 1) for (let i = 0; i < random.length; i++) random[i] = (random[i] ?? 0) & 3;
    if (kind === 2) random.fill(7);
    await file.write(random, 0, random.length, at);
  }
}
