import { afterAll, beforeAll, expect, it } from 'vitest';
import { complaint } from './expectations.ts';
import { runSweep } from './run-sweep.ts';
import { quick } from './sample.ts';
import { makeSpecimen, type Specimen } from './specimen.ts';

let specimen: Specimen;
beforeAll(async () => {
  specimen = await makeSpecimen('small');
}, 60_000);
afterAll(async () => await specimen.rig[Symbol.asyncDispose]());

it('notices a change to any field of any kind of object, and names it', { timeout: 60_000 }, async () => {
  const complaints: string[] = [];
  const kinds = new Set<string>();
  let attempts = 0;
  for await (const attempt of runSweep(specimen, quick(specimen))) {
    attempts++;
    kinds.add(attempt.manipulation.kind);
    const found = complaint(attempt);
    if (found !== null) complaints.push(found);
  }
  expect([...kinds].sort()).toEqual(['chain entry', 'key record', 'repository', 'segment', 'trust']);
  expect(complaints).toEqual([]);
  expect(attempts).toBeGreaterThan(100);
});
