import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { failkitHere } from '../agent/in-process.ts';
import { nbdNeeds, runNbdTool } from '../peers/nbd.ts';

const needs = await nbdNeeds();
const mebibyte = 2 ** 20;
const clusterBytes = 65_536;
/** A whole lap of spot checks in so long. */
const lapSeconds = 2;

/** A real qcow2 image, whose content changes in ways that its bitmap does not show. */
describe.skipIf(needs !== null)(`spot checks of a qcow2 image (${needs ?? 'real qemu-nbd'})`, () => {
  let folder: string;
  let image: string;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'failkit-spot-'));
    image = join(folder, 'web.qcow2');
    const raw = join(folder, 'web.raw');
    writeFileSync(raw, randomBytes(4 * mebibyte));
    truncateSync(raw, 16 * mebibyte);
    await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, image]);
    configure(lapSeconds / 86_400);
    expect((await failkit('init', '--kit', join(folder, 'kit'))).exitCode).toBe(0);
    expect((await failkit('seed')).exitCode).toBe(0);
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('find nothing where the bitmap tells the truth, and status shows how far they came', async () => {
    await qemuIo('write -P 7 1M 64k', 'discard 2M 128k');
    await sleep(lapSeconds * 1_000);
    expect(reasonIn(await failkit('sync', '--json'))).toBe('');
    const { exitCode, stdout } = await failkit('status');
    expect([exitCode, stdout]).toEqual([0, expect.stringMatching(/tracking verified to \d{4}-\d\d-\d\d \d\d:\d\d$/m)]);
    await expectRestoredWhole();
  });

  it('find a cluster that was patched in the file itself', async () => {
    const at = await hostOffset(3 * mebibyte);
    await using file = await open(image, 'r+');
    await file.write(randomBytes(512), 0, 512, at + 1_024);
    await file.sync();
    await expectFoundOut(3 * mebibyte);
  });

  it('find a write that was made while the bitmap was away', async () => {
    const name = await bitmapName();
    await runNbdTool('qemu-img', ['bitmap', '--remove', '-f', 'qcow2', image, name]);
    await qemuIo('write -P 9 10M 64k');
    await runNbdTool('qemu-img', ['bitmap', '--add', '-g', `${clusterBytes}`, '-f', 'qcow2', image, name]);
    await expectFoundOut(10 * mebibyte);
  });

  it('find out, also while they are off, that the disk was made smaller and as large as before: the bitmap has no word for it', async () => {
    configure(0);
    await runNbdTool('qemu-img', ['resize', '-q', '-f', 'qcow2', '--shrink', image, `${2 * mebibyte}`]);
    await runNbdTool('qemu-img', ['resize', '-q', '-f', 'qcow2', image, `${16 * mebibyte}`]);
    await qemuIo('write -P 9 3M 1M');
    expect(reasonIn(await failkit('sync', '--json'))).toMatch(
      /^resync: spot check: block 47 of disk root .* was the disk made smaller, and larger again\?$/,
    );
    await expectRestoredWhole();
  });

  it('say that they are off where they are, and then find nothing', async () => {
    configure(0);
    const at = await hostOffset(3 * mebibyte);
    {
      await using file = await open(image, 'r+');
      await file.write(randomBytes(512), 0, 512, at);
    }
    expect(reasonIn(await failkit('sync', '--json'))).toBe('');
    expect((await failkit('status')).stdout).toMatch(/; spot checks are off: it is trusted blindly$/m);
  });

  async function expectFoundOut(offset: number): Promise<void> {
    await sleep(lapSeconds * 1_000);
    const synced = await failkit('sync', '--json');
    expect(synced.exitCode).toBe(0);
    expect(reasonIn(synced)).toMatch(
      new RegExp(`^resync: spot check: block ${offset / clusterBytes} of disk root \\(at byte ${offset}\\)`),
    );
    const status = await failkit('status');
    expect(status.exitCode).toBe(3);
    expect(status.stdout).toMatch(/^untrusted {2}web /m);
    await expectRestoredWhole();
    expect((await failkit('acknowledge', 'web')).exitCode).toBe(0);
    expect(reasonIn(await failkit('sync', '--json'))).toBe('');
    expect((await failkit('status')).exitCode).toBe(0);
  }

  async function expectRestoredWhole(): Promise<void> {
    const to = join(folder, 'restored');
    expect((await failkit('restore', 'web', '--to', to)).exitCode).toBe(0);
    await runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', join(to, 'root.raw'), image]);
  }

  async function hostOffset(guest: number): Promise<number> {
    const map = JSON.parse(await runNbdTool('qemu-img', ['map', '--output=json', '-f', 'qcow2', image])) as {
      readonly start: number;
      readonly length: number;
      readonly offset?: number;
    }[];
    const part = map.find(({ start, length }) => start <= guest && guest < start + length);
    if (part?.offset === undefined) throw new Error(`nothing is allocated at ${guest}`);
    return part.offset + guest - part.start;
  }

  async function bitmapName(): Promise<string> {
    const info = JSON.parse(await runNbdTool('qemu-img', ['info', '--output=json', image]));
    return info['format-specific'].data.bitmaps[0].name;
  }

  async function qemuIo(...commands: readonly string[]): Promise<void> {
    const args = commands.flatMap((command) => ['-c', command]);
    await runNbdTool('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...args, image]);
  }

  function configure(everyDays: number): void {
    writeFileSync(
      join(folder, 'failkit.yaml'),
      `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
spotCheck: { everyDays: ${everyDays} }
machines:
  - name: web
    source: { type: image, disks: [{ label: root, path: web.qcow2, format: qcow2, tracking: bitmap }] }
`,
    );
  }

  function failkit(...args: string[]) {
    return failkitHere(['--config', join(folder, 'failkit.yaml'), ...args]);
  }
});

function reasonIn({ stdout }: { readonly stdout: string }): string {
  const { machines } = JSON.parse(stdout) as {
    machines: readonly { readonly disks?: readonly { readonly fullReadReason: string }[] }[];
  };
  return machines[0]?.disks?.[0]?.fullReadReason ?? stdout;
}
