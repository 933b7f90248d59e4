import { test } from 'vitest';
import { checkLaw, runsWanted } from './check-law.ts';

test('restore(recovery point) equals the machine at that snapshot, for many long histories', () =>
  checkLaw(runsWanted(100), 45, 'every point, each time'));
