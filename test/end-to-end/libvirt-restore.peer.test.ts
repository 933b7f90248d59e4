/** A point of a machine of libvirt becomes a machine again: another one, which boots with what the first had written. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stopWriter } from '../peers/guest-writer.ts';
import { libvirtNeeds, runByAgent } from '../peers/libvirt.ts';
import { type LibvirtSite, openLibvirtSite } from './libvirt-site.ts';

const needs = await libvirtNeeds();

describe.skipIf(needs !== null)(`a restored machine of libvirt${needs === null ? '' : ` (${needs})`}`, () => {
  let site: LibvirtSite;
  beforeAll(async () => {
    site = await openLibvirtSite();
    await site.boot();
    await expectOk('init', '--kit', 'kit');
    await write('first');
    await expectOk('seed', 'web');
    await write('last');
    await stopWriter(site.guest);
    await expectOk('sync', 'web');
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  async function expectOk(...args: string[]) {
    const outcome = await site.failkit(...args);
    expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
    return outcome;
  }

  async function write(word: string): Promise<void> {
    const { code } = await site.guest.run(`echo ${word} >/data/vdb/${word}; sync`);
    expect(code).toBe(0);
  }

  const pointNumbers = async (): Promise<readonly number[]> => {
    const { machines } = (await expectOk('points', 'web', '--json')).json<{
      machines: { points: { point: number }[] }[];
    }>();
    return machines[0]?.points.map(({ point }) => point) ?? [];
  };

  it.for([
    { which: 'first', at: 0, files: 'first', format: 'qcow2' },
    { which: 'last', at: -1, files: 'first\nlast', format: 'raw' },
  ] as const)(
    'boots from the $which point beside the original, with its files and its own identity',
    async ({ which, at, files, format }) => {
      const point = (await pointNumbers()).at(at);
      const to = join(site.folder, `restored-${which}`);
      const name = `web-${which}`;
      const options = ['--point', String(point), '--format', format, '--define', site.peer.uri, '--name', name];
      await expectOk('restore', 'web', '--to', to, ...options);
      const definition = await site.peer.virsh('dumpxml', name);
      expect(definition).not.toContain('<interface');
      expect((await site.peer.virsh('domuuid', name)).trim()).not.toBe(
        (await site.peer.virsh('domuuid', 'web')).trim(),
      );
      await site.peer.virsh('start', name);
      try {
        expect(await runByAgent(site.peer, name, 'cat /boots')).toBe('2');
        expect(await runByAgent(site.peer, name, 'cd /data/vdb && ls first last 2>/dev/null')).toBe(files);
        const slots = JSON.parse(await runByAgent(site.peer, name, 'writer check /data/vdb/slots'));
        expect(slots.good).toBeGreaterThan(0);
        expect(slots.torn).toBeLessThanOrEqual(1);
      } finally {
        await site.peer.virsh('destroy', name);
      }
      const again = await site.failkit('restore', 'web', '--to', `${to}-2`, ...options);
      expect([again.exitCode, again.stderr]).toEqual([8, expect.stringContaining(`has a domain ${name} already`)]);
    },
  );

  it('is started by its script with plain QEMU', async () => {
    const to = join(site.folder, 'restored-plain');
    const [script, definition] = [join(site.folder, 'web.sh'), join(site.folder, 'web-new.xml')];
    await expectOk('restore', 'web', '--to', to, '--qemu', script, '--define-file', definition);
    expect(await readFile(script, 'utf8')).toMatch(/exec qemu-system-x86_64/);
    expect(await readFile(definition, 'utf8')).toContain('<name>web-restored</name>');
    // With the processor of QEMU's own: on some hosts of tests /dev/kvm opens and does not work.
    const qemu = spawn(script, ['-machine', 'accel=tcg'], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      let console = '';
      for await (const text of qemu.stdout.setEncoding('latin1')) {
        console += text;
        if (/^READY boot=2 /m.test(console)) qemu.stdin.write('cat /data/vdb/last\n');
        if (/^last\r?$/m.test(console)) break;
      }
      expect(console).toMatch(/^last\r?$/m);
    } finally {
      qemu.kill('SIGKILL');
    }
  });

  it.for([
    { what: 'a name for nothing', options: ['--name', 'x'], says: /--define/ },
    { what: 'a part of a machine', options: ['--disk', 'vda', '--qemu', 'x'], says: /leave out --disk/ },
    { what: 'a network for a script', options: ['--qemu', 'x', '--network', 'default'], says: /leave out --network/ },
    { what: 'a name that is a path', options: ['--qemu', 'x', '--name', '../y'], says: /no name for a machine/ },
    { what: 'a file that exists', options: ['--define-file', '/etc/hostname'], says: /hostname exists/ },
    { what: 'a file in no folder', options: ['--qemu', '/nowhere/x'], says: /no folder \/nowhere/ },
    {
      what: 'a libvirt that is not there',
      options: ['--define', 'qemu+unix:///system?socket=/nowhere'],
      says: /can't be reached/,
    },
  ])('refuses $what before it restores anything', async ({ options, says }) => {
    await expectRefused(options, says);
  });

  it('refuses a network that its libvirt does not have before it restores anything', async () => {
    await expectRefused(['--define', site.peer.uri, '--network', 'nonesuch'], /has no network nonesuch/);
  });

  async function expectRefused(options: readonly string[], says: RegExp): Promise<void> {
    const { exitCode, stderr } = await site.failkit('restore', 'web', '--to', join(site.folder, 'never'), ...options);
    expect(exitCode).toBeGreaterThan(1);
    expect(stderr).toMatch(says);
    await expect(readFile(join(site.folder, 'never'))).rejects.toThrow('ENOENT');
  }
});
