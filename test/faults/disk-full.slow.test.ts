import { cpSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type CliOutcome, CliWorld, sha256OfFile } from './cli-world.ts';
import { SmallDisk, whyNoSmallDisk } from './small-disk.ts';

const needs = whyNoSmallDisk();
const diskBytes = 64 * 2 ** 20;
const kibibyte = 1024;
/** From nothing to enough: the disk is full at another moment each time. */
const roomsInBucket = [0, 4, 12, 64, 2_000, 4_300, 8_500, 9_200, 9_260, 9_300, 20_000].map((room) => room * kibibyte);
const roomsInState = [0, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 512].map((room) => room * kibibyte);

describe.skipIf(needs !== null)(needs ?? 'a full disk', { timeout: 900_000 }, () => {
  it('under the bucket directory: the run says so, leaves nothing unfinished, and the next one goes on', async () => {
    using base = await CliWorld.create();
    const outcomes: string[] = [];
    for (const room of roomsInBucket) {
      using world = new CliWorld(base);
      using disk = moveToSmallDisk(world, 'bucket');
      disk.leave(room);
      outcomes.push(outcomeOf(await world.run(['seed', 'm']), 'QUOTA_EXCEEDED', 4));
      expect(world.unfinished()).toEqual([]);
      disk.makeRoom();
      const { point } = await world.publishNext();
      const points = new Map([[point, world.imageSha256]]);
      world.changeImage('one');
      disk.leave(room);
      const synced = await world.run(['sync', 'm']);
      outcomes.push(outcomeOf(synced, 'QUOTA_EXCEEDED', 4));
      expect(world.unfinished()).toEqual([]);
      await world.requirePoints(points);
      disk.makeRoom();
      points.set((await world.publishNext()).point, world.imageSha256);
      await world.requirePoints(points);
    }
    report('bucket', outcomes);
  });

  it('under the state folder: the run says so, and the next one goes on', async () => {
    using base = await CliWorld.create();
    const outcomes: string[] = [];
    for (const room of roomsInState) {
      using world = new CliWorld(base);
      using disk = moveToSmallDisk(world, 'state');
      disk.leave(room);
      outcomes.push(outcomeOf(await world.run(['seed', 'm']), 'STATE_DISK_FULL', 6));
      disk.makeRoom();
      const { point } = await world.publishNext();
      const points = new Map([[point, world.imageSha256]]);
      world.changeImage('one');
      disk.leave(room);
      outcomes.push(outcomeOf(await world.run(['sync', 'm']), 'STATE_DISK_FULL', 6));
      disk.makeRoom();
      points.set((await world.publishNext()).point, world.imageSha256);
      await world.requirePoints(points);
    }
    report('state', outcomes);
  });

  it('under a restore: it says so, and goes on where it stopped when there is room', async () => {
    using world = await CliWorld.create();
    await world.publishNext();
    using disk = new SmallDisk(world.path('out'), diskBytes);
    const args = ['restore', 'm', '--to', world.path('out')];
    disk.leave(5 * 2 ** 20);
    expect(outcomeOf(await world.run(args), 'OUTPUT_UNUSABLE', 3)).toBe('OUTPUT_UNUSABLE');
    disk.makeRoom();
    const { keptBytes } = JSON.parse((await world.succeed(args)).stdout);
    expect(keptBytes).toBeGreaterThan(2 ** 20);
    expect(sha256OfFile(world.path('out/root.raw'))).toBe(world.imageSha256);
    expect(readdirSync(world.path('out'))).toEqual(['root.raw']);
  });
});

/** The folder as it is, on a disk of its own. */
function moveToSmallDisk(world: CliWorld, name: string): SmallDisk {
  renameSync(world.path(name), world.path(`${name}-before`));
  const disk = new SmallDisk(world.path(name), diskBytes);
  cpSync(world.path(`${name}-before`), world.path(name), { recursive: true });
  rmSync(world.path(`${name}-before`), { recursive: true });
  return disk;
}

/** `ok`, or the code that was to be expected. Anything else is thrown. */
function outcomeOf({ exitCode, stdout, stderr }: CliOutcome, code: string, expectedExitCode: number): string {
  if (exitCode === 0) return 'ok';
  if (exitCode === expectedExitCode && JSON.parse(stdout).error.code === code) return code;
  throw new Error(`expected ${code}: ${stdout}${stderr}`);
}

/** Both ends of the scale have to be there, or nothing was tested. */
function report(where: string, outcomes: readonly string[]): void {
  const failed = outcomes.filter((outcome) => outcome !== 'ok').length;
  process.stdout.write(`full disk under the ${where}: ${outcomes.length} runs, ${failed} failed by name\n`);
  expect(outcomes[0]).not.toBe('ok');
  expect(outcomes.at(-1)).toBe('ok');
}
