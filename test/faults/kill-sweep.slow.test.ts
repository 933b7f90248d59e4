import { existsSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { CliWorld, sha256OfFile } from './cli-world.ts';
import { checkNextRun, killSweep } from './kill-sweep.ts';

const first = Number(process.env.STRIDE ?? 1);
const timeout = 3_600_000;
const moments = [
  { moment: 'before', stride: first },
  { moment: 'after', stride: 9 * first },
] as const;

describe.each(moments)('kill -9 $moment a call', { timeout }, ({ moment, stride }) => {
  it('of a seed', async () => {
    using world = await CliWorld.create();
    const cleanRunBytes = await bytesOfCleanSeed(world);
    let againMax = 0;
    const check = async (copy: CliWorld): Promise<void> => {
      againMax = Math.max(againMax, await checkNextRun(copy, new Map(), cleanRunBytes));
    };
    const kills = await killSweep({ world, args: () => ['seed', 'm'], moment, stride, check });
    process.stdout.write(`seed, killed ${moment} a call: ${kills} kills, ${againMax} segments sent again at most\n`);
    expect(kills).toBeGreaterThan(100 / stride);
  });

  it('of a sync', async () => {
    using world = await CliWorld.create();
    const points = new Map([[(await world.publishNext()).point, world.imageSha256]]);
    world.changeImage('one');
    points.set((await world.publishNext()).point, world.imageSha256);
    world.changeImage('two');
    const check = async (copy: CliWorld): Promise<void> => {
      await checkNextRun(copy, points, null);
    };
    const kills = await killSweep({ world, args: () => ['sync', 'm'], moment, stride, check });
    process.stdout.write(`sync, killed ${moment} a call: ${kills} kills\n`);
    expect(kills).toBeGreaterThan(60 / stride);
  });

  it('of a restore', async () => {
    using world = await CliWorld.create();
    const digest = world.imageSha256;
    await world.publishNext();
    const to = (copy: CliWorld): string => copy.path('out');
    const args = ['restore', 'm', '--to'];
    const check = async (copy: CliWorld): Promise<void> => {
      expect(existsSync(`${to(copy)}/root.raw`) ? sha256OfFile(`${to(copy)}/root.raw`) : digest).toBe(digest);
      await copy.succeed([...args, to(copy), '--force']);
      expect(readdirSync(to(copy))).toEqual(['root.raw']);
      expect(sha256OfFile(`${to(copy)}/root.raw`)).toBe(digest);
    };
    const kills = await killSweep({ world, args: (copy) => [...args, to(copy)], moment, stride, check });
    process.stdout.write(`restore, killed ${moment} a call: ${kills} kills\n`);
    expect(kills).toBeGreaterThan(30 / stride);
  });
});

describe('kill -9 of an init', { timeout }, () => {
  it('leaves nothing that another init does not finish, or tell the operator to remove', async () => {
    using world = CliWorld.empty();
    const check = async (copy: CliWorld): Promise<void> => {
      const again = await copy.run(['init', '--kit', copy.path('kit-2')]);
      if (again.stdout.includes('the beginning of a repository')) {
        rmSync(copy.path('bucket/repository'));
        await copy.succeed(['init', '--kit', copy.path('kit-3')]);
      } else if (again.exitCode !== 0) {
        expect(again.stdout).toContain('REPOSITORY_EXISTS');
        // The kit of the killed init is whole, and is all that it takes.
        copy.writeConfig('state', 'bucket', copy.rootFingerprint);
      }
      await checkNextRun(copy, new Map(), null);
    };
    const args = (copy: CliWorld): readonly string[] => ['init', '--kit', copy.path('kit')];
    const kills = await killSweep({ world, args, moment: 'before', only: { from: 'local.key' }, stride: first, check });
    process.stdout.write(`init, killed before a call: ${kills} kills\n`);
    expect(kills).toBeGreaterThan(10 / first);
  });
});

describe('kill -9 at random times', () => {
  const kills = 12;
  it('again and again in one history', async () => {
    using world = await CliWorld.create();
    const points = new Map<number, string>();
    const runMs = await millisecondsOfSeed(world);
    for (let kill = 0; kill < kills; kill++) {
      const delayMs = Math.random() * runMs;
      const verb = points.size === 0 ? 'seed' : 'sync';
      const process = world.start([verb, 'm'], null);
      await Promise.race([sleep(delayMs), process.ended]);
      process.child.kill('SIGKILL');
      await process.ended;
      await world.requirePoints(points);
      if (kill % 3 !== 2) continue;
      const { point } = await world.publishNext();
      points.set(point, world.imageSha256);
      await world.requirePoints(points);
      world.changeImage(`${kill}`);
    }
    expect(points.size).toBe(kills / 3);
  });

  it('leaves files of unfinished puts, which a later start removes', async () => {
    using world = await CliWorld.create();
    const killed = world.start(['seed', 'm'], { at: 3, moment: 'before', match: 'link', signal: 'SIGKILL' });
    await killed.ended;
    const left = world.unfinished();
    expect(left.length).toBeGreaterThan(0);
    const longAgo = Date.now() / 1000 - 2 * 3600;
    for (const name of left) utimesSync(world.path('bucket', '.incoming~', name), longAgo, longAgo);
    await world.publishNext();
    expect(world.unfinished()).toEqual([]);
  });
});

async function bytesOfCleanSeed(world: CliWorld): Promise<number> {
  using copy = new CliWorld(world);
  return (await copy.publishNext()).uploadedBytes;
}

async function millisecondsOfSeed(world: CliWorld): Promise<number> {
  using copy = new CliWorld(world);
  const startedMs = performance.now();
  await copy.start(['seed', 'm'], null).ended;
  return performance.now() - startedMs;
}
