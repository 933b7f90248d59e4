/** Before all tests: makes the known secrets. After all tests: fails the run if one of them was printed. */
import { openCanaryFolder, removeCanaryFolder, sweepCanaries } from './canary.ts';

const folder = openCanaryFolder();

export function teardown(): void {
  const leaks = sweepCanaries(folder);
  if (leaks.length > 0) throw new Error(`secrets were printed by the tests: ${leaks.join('; ')} (folder ${folder})`);
  removeCanaryFolder(folder);
}
