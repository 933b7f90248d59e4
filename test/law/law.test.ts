import { test } from 'vitest';
import { checkLaw, runsWanted } from './check-law.ts';

test(
  'restore(recovery point) equals the machine at that snapshot, for any history',
  () => checkLaw(runsWanted(8), 16),
  600_000,
);
