import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type BootRow, openBootStand } from '../../bench/serve/measure-boot.ts';
import { bootRatios } from '../../bench/serve/serve-table.ts';
import { guestNeeds } from '../peers/guest.ts';
import { nbdNeeds } from '../peers/nbd.ts';
import { minioNeeds } from '../peers/s3.ts';

const needs = (await minioNeeds()) ?? (await nbdNeeds()) ?? (await guestNeeds());
const launcher = join(import.meta.dirname, '../../bin/failkit');
/** A machine with other work takes turns with it: the next round may be the quiet one. */
const roundsMax = 3;

it('a machine boots from the bucket in less than twice the time of a local file, and fetches at most twice what it reads', async (test) => {
  if (needs !== null) test.skip(needs);
  const folder = await mkdtemp(join(tmpdir(), 'failkit-boot-'));
  await using stand = await openBootStand(folder, launcher);
  const rows: BootRow[] = [];
  for (let round = 1; round <= roundsMax; round++) {
    rows.push(await stand.boot(round, 0));
    expect(bootRatios(rows).bytes).toBeLessThanOrEqual(2);
    if (bootRatios(rows).time < 2) break;
  }
  expect(bootRatios(rows).time).toBeLessThan(2);
  await stand[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});
