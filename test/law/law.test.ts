import { test } from 'vitest';
import { checkLaw } from './check-law.ts';

const runs = Number(process.env.FAILKIT_LAW_RUNS ?? 25);

test('restore(recovery point) equals the machine at that snapshot, for any history', () => checkLaw(runs, 16), 600_000);
