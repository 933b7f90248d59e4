import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CliWorld, sha256OfFile } from './cli-world.ts';
import { noise } from './fault-world.ts';

describe('an interrupted restore', { timeout: 300_000 }, () => {
  it('of one disk gives nothing of it to another disk that is restored to the same file', async () => {
    using world = CliWorld.empty();
    writeFileSync(world.path('empty.img'), new Uint8Array(9 * 2 ** 20));
    world.writeConfig('state', 'bucket', null, { disks: [{ label: 'empty', path: 'empty.img' }] });
    await world.succeed(['init', '--kit', world.path('kit')]);
    await world.publishNext();
    const to = world.path('out.raw');
    const killed = world.start(['restore', 'm', '--disk', 'root', '--to', to], {
      at: 8,
      moment: 'after',
      match: 'writeSync',
      signal: 'SIGKILL',
    });
    expect((await killed.ended).signal).toBe('SIGKILL');
    await world.succeed(['restore', 'm', '--disk', 'empty', '--to', to]);
    expect(sha256OfFile(to)).toBe(sha256OfFile(world.path('empty.img')));
  });

  it('of several disks goes on by the same command, after the first of them was whole', async () => {
    using world = CliWorld.empty();
    writeFileSync(world.path('second.img'), noise('second', 2 ** 20));
    world.writeConfig('state', 'bucket', null, { disks: [{ label: 'second', path: 'second.img' }] });
    await world.succeed(['init', '--kit', world.path('kit')]);
    await world.publishNext();
    const args = ['restore', 'm', '--to', world.path('out')];
    const injection = { at: 1, moment: 'before', match: 'rename', signal: 'SIGKILL' } as const;
    expect((await world.start(args, injection).ended).signal).toBe('SIGKILL');
    const { keptBytes } = JSON.parse((await world.succeed(args)).stdout);
    expect(keptBytes).toBeGreaterThanOrEqual(9 * 2 ** 20);
    for (const [label, image] of [
      ['root', 'disk'],
      ['second', 'second'],
    ])
      expect(sha256OfFile(world.path(`out/${label}.raw`))).toBe(sha256OfFile(world.path(`${image}.img`)));
    expect(readdirSync(world.path('out')).sort()).toEqual(['root.raw', 'second.raw']);
  });

  it('in the middle of an attachment is not in the way of the next one', async () => {
    using world = CliWorld.empty();
    writeFileSync(world.path('nvram'), 'variables');
    world.writeConfig('state', 'bucket', null, { attachments: ['nvram'] });
    await world.succeed(['init', '--kit', world.path('kit')]);
    await world.publishNext();
    const args = ['restore', 'm', '--to', world.path('out')];
    const killed = world.start(args, { at: 1, moment: 'after', match: 'nvram', signal: 'SIGKILL' });
    expect((await killed.ended).signal).toBe('SIGKILL');
    expect(existsSync(world.path('out/attachments/nvram'))).toBe(false);
    await world.succeed([...args, '--force']);
    expect(readFileSync(world.path('out/attachments/nvram'), 'utf8')).toBe('variables');
    expect(readdirSync(world.path('out/attachments'))).toEqual(['nvram']);
  });
});
