import { join } from 'node:path';
import { failkit } from './contestants/failkit.ts';
import { kopia } from './contestants/kopia.ts';
import { restic } from './contestants/restic.ts';

/** The benchmark that runs with the tests: a small image of real files that every clone has. */

export const shortSource = join(import.meta.dirname, '../node_modules');
export const shortContestants = [failkit, restic, kopia];
