import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { exitCodes } from '../../agent/remedy.ts';
import { CliWorld } from './cli-world.ts';

const timeout = 900_000;
const stride = 12;
/** Far longer than any run with its retries takes; a timer or a thread that is left behind would keep the process for ever. */
const endsWithinMs = 120_000;

describe.each(['EIO', 'ENOSPC'] as const)('a process that the system tells %s once', { timeout }, (errno) => {
  it.each(['seed', 'sync'])(
    'in a %s ends by itself, with success or a name, and the next run succeeds',
    async (verb) => {
      using base = await CliWorld.create();
      if (verb === 'sync') await base.publishNext();
      base.changeImage('one');
      const outcomes = { ok: 0, failed: 0 };
      for (let at = 1; ; at += stride) {
        using world = new CliWorld(base);
        const { child, ended } = world.start([verb, 'm'], {
          at,
          moment: 'before',
          errno,
          countTo: world.path('count'),
        });
        const outcome = await Promise.race([ended, sleep(endsWithinMs, null, { ref: false })]);
        if (outcome === null) child.kill('SIGKILL');
        if (outcome === null) throw new Error(`call ${at}: the process did not end`);
        const met = world.countedCalls >= at;
        if (!met) break;
        if (outcome.exitCode === 0) outcomes.ok++;
        else outcomes.failed++;
        expect(outcome.exitCode, `call ${at}: ${outcome.stderr}`).not.toBe(exitCodes.unexpected);
        const { point } = await world.publishNext();
        await world.requirePoints(new Map([[point, world.imageSha256]]));
      }
      process.stdout.write(
        `${errno} once in a ${verb}: ${outcomes.ok} runs succeeded, ${outcomes.failed} failed by name\n`,
      );
      expect(outcomes.failed).toBeGreaterThan(0);
    },
  );
});
