import { cpSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CliWorld } from './cli-world.ts';
import { cloneState, pointOf, requireFenced, startStopped, twoHosts } from './two-agents.ts';

const rounds = 4;

describe('two agents on one machine', { timeout: 900_000 }, () => {
  it('take turns: the one that lost the machine is fenced until it is told to take over', async () => {
    using world = await twoHosts();
    const points = new Map([[(await world.publishNext()).point, world.imageSha256]]);
    expect((await world.run(['seed', 'm'], 'other')).stdout).toContain('--take-over');
    for (const [winner, loser] of [
      ['other', 'state'],
      ['state', 'other'],
    ] as const) {
      world.changeImage(winner);
      const { stdout } = await world.succeed(['sync', 'm', '--take-over'], winner);
      points.set(JSON.parse(stdout).machines[0].point, world.imageSha256);
      requireFenced(await world.run(['sync', 'm'], loser));
    }
    await world.requirePoints(points);
    await world.requirePoints(points, 'other');
  });

  it('take over at the same time: each published point is whole, and whoever did not publish was fenced', async () => {
    using world = await twoHosts();
    const points = new Map([[(await world.publishNext()).point, world.imageSha256]]);
    let fenced = 0;
    for (let round = 0; round < rounds; round++) {
      world.changeImage(`${round}`);
      const args = ['sync', 'm', '--take-over'];
      const both = [world.start(args, null, 'state'), world.start(args, null, 'other')];
      const published = (await Promise.all(both.map(({ ended }) => ended))).map(pointOf);
      for (const point of published) if (point !== null) points.set(point, world.imageSha256);
      fenced += published.filter((point) => point === null).length;
      expect(published.some((point) => point !== null)).toBe(true);
      await world.requirePoints(points);
    }
    process.stdout.write(`two agents at once: ${rounds} rounds, ${points.size - 1} points, ${fenced} runs fenced\n`);
    await world.requirePoints(points, 'other');
  });

  it('of which one was stopped and taken over: it is fenced when it goes on', async () => {
    using world = await twoHosts();
    const points = new Map([[(await world.publishNext()).point, world.imageSha256]]);
    world.changeImage('one');
    const zombie = await startStopped(world, ['sync', 'm'], { at: 2, match: '/segments/' });
    const { stdout } = await world.succeed(['sync', 'm', '--take-over'], 'other');
    points.set(JSON.parse(stdout).machines[0].point, world.imageSha256);
    zombie.child.kill('SIGCONT');
    requireFenced(await zombie.ended);
    await world.requirePoints(points);
    requireFenced(await world.run(['sync', 'm']));
    const { point } = await world.publishNext('other');
    await world.requirePoints(new Map([...points, [point, world.imageSha256]]), 'other');
  });
});

describe('an agent whose state folder was copied', { timeout: 900_000 }, () => {
  it('alternates with its copy: the one that comes second is fenced', async () => {
    using world = await CliWorld.create();
    const points = new Map([[(await world.publishNext()).point, world.imageSha256]]);
    cloneState(world);
    world.changeImage('one');
    const { point } = await world.publishNext('other');
    points.set(point, world.imageSha256);
    requireFenced(await world.run(['sync', 'm'], 'state'));
    await world.requirePoints(points, 'other');
  });

  it('runs at the same time as its copy: exactly one publishes', async () => {
    using world = await CliWorld.create();
    const points = new Map([[(await world.publishNext()).point, world.imageSha256]]);
    for (let round = 0; round < rounds; round++) {
      using copy = new CliWorld(world);
      cloneState(copy);
      copy.changeImage(`${round}`);
      const both = [copy.start(['sync', 'm'], null, 'state'), copy.start(['sync', 'm'], null, 'other')];
      const published = (await Promise.all(both.map(({ ended }) => ended))).map(pointOf);
      expect(published.filter((point) => point !== null)).toHaveLength(1);
      const point = published[0] ?? published[1] ?? 0;
      await copy.requirePoints(new Map([...points, [point, copy.imageSha256]]));
    }
  });

  it('in the middle of a first copy: the stopped one is fenced after its copy went on and published', async () => {
    using world = await CliWorld.create();
    const zombie = await startStopped(world, ['seed', 'm'], { at: 3, match: '/segments/' });
    world.writeConfig('other', 'bucket');
    cpSync(world.path('state'), world.path('other'), { recursive: true });
    const { point } = await world.publishNext('other');
    zombie.child.kill('SIGCONT');
    requireFenced(await zombie.ended);
    await world.requirePoints(new Map([[point, world.imageSha256]]));
  });
});

describe('two processes of one agent', { timeout: 300_000 }, () => {
  it('are told apart: the second one is sent away, and the first one publishes', async () => {
    using world = await CliWorld.create();
    const first = await startStopped(world, ['seed', 'm'], { at: 2, match: '/segments/' });
    const second = await world.start(['seed', 'm'], null).ended;
    expect(JSON.parse(second.stdout).error).toMatchObject({ code: 'STATE_BUSY', retry: true });
    first.child.kill('SIGCONT');
    const { exitCode, stdout } = await first.ended;
    expect(exitCode).toBe(0);
    await world.requirePoints(new Map([[JSON.parse(stdout).machines[0].point, world.imageSha256]]));
  });
});
