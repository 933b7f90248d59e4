import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { runLane } from './lane.ts';
import { emptyTally, type Tally, tallyOfUnittest, withExitCode } from './tally.ts';

const environment = 'the Python environment of the independent reader';

/** The independent reader's own tests, under the Python environment that its installer makes outside the clone. */
export async function runPythonTests(root: string, transcriptFolder: string): Promise<Tally> {
  const reader = join(root, 'test/independent-reader');
  if (!existsSync(reader) || !readdirSync(reader).some((name) => /^test_.*\.py$/.test(name))) return emptyTally;
  const command = join(reader, 'install.sh');
  const installed = await runLane({ name: 'python-install', command, args: [], show: 'after' }, transcriptFolder);
  const python = installed.output.trim().split('\n').at(-1) ?? '';
  if (installed.exitCode !== 0)
    return { ...emptyTally, skipped: [{ name: 'test/independent-reader', reason: `needs ${environment}: ${python}` }] };
  const args = ['-m', 'unittest', 'discover', '-v', '-s', reader];
  const run = await runLane({ name: 'python', command: python, args, show: 'live' }, transcriptFolder);
  return withExitCode(tallyOfUnittest(run.output), run.exitCode);
}
