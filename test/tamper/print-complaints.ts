import { complaint } from './expectations.ts';
import { runSweep } from './run-sweep.ts';
import { quick } from './sample.ts';
import { makeSpecimen } from './specimen.ts';

/** The quick sweep as a program: prints what it complains about, as JSON. Run in copies of the sources that lack a check. */
const specimen = await makeSpecimen('small');
const complaints: string[] = [];
for await (const attempt of runSweep(specimen, quick(specimen))) {
  const found = complaint(attempt);
  if (found !== null) complaints.push(found);
}
console.log(JSON.stringify(complaints));
await specimen.rig[Symbol.asyncDispose]();
