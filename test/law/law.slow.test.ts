import { test } from 'vitest';
import { checkLaw, runsWanted } from './check-law.ts';

/** Other ones each time. */
const runs = runsWanted(50);

test(`restore(recovery point) equals the machine at that snapshot, for ${runs} long histories`, () =>
  checkLaw(runs, 45, 'every point, each time'));
