/**
 * Runs the project's checks and tests: `run.ts check` for the quick part (under a minute), `run.ts all` for everything.
 * The last line is always `N passed, N failed, N skipped`; the exit code is 1 when anything failed.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCanaryFolder, removeCanaryFolder, sweepCanaries } from '../canary.ts';
import { type Lane, runLane } from './lane.ts';
import { runPythonTests } from './python-lane.ts';
import { emptyTally, lastLine, stubLines, sum, type Tally, tallyOfCheck, withExitCode } from './tally.ts';

const root = join(import.meta.dirname, '../..');
const bin = join(root, 'node_modules/.bin');
process.chdir(root);

const staticLanes: readonly Lane[] = [
  { name: 'types', command: join(bin, 'tsc'), args: ['--noEmit', '-p', '.'], show: 'after' },
  { name: 'lint', command: join(bin, 'biome'), args: ['check', '--error-on-warnings', '.'], show: 'after' },
  { name: 'dead code', command: join(bin, 'knip'), args: ['--no-progress'], show: 'after' },
];

async function runChecks(folder: string): Promise<Tally> {
  const runs = await Promise.all(staticLanes.map((lane) => runLane(lane, folder)));
  return sum(runs.map((run) => tallyOfCheck(run.exitCode)));
}

/** A peer that can't be installed fails nothing here: its tests are skipped and say what they need. */
async function installPeers(folder: string): Promise<void> {
  const command = join(root, 'test/peers/install.sh');
  if (existsSync(command)) await runLane({ name: 'peers', command, args: [], show: 'live' }, folder);
}

async function runVitest(
  projects: readonly string[],
  folder: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Tally> {
  const tallyFile = join(folder, 'vitest-tally.json');
  const run = await runLane(
    {
      name: 'tests',
      command: join(bin, 'vitest'),
      args: ['run', ...projects.flatMap((project) => ['--project', project])],
      env: { FAILKIT_TALLY_FILE: tallyFile, ...env },
      show: 'live',
    },
    folder,
  );
  const tally: Tally = existsSync(tallyFile) ? JSON.parse(readFileSync(tallyFile, 'utf8')) : emptyTally;
  return withExitCode(tally, run.exitCode);
}

function checkCanaries(folder: string): Tally {
  const leaks = sweepCanaries(folder);
  for (const leak of leaks) process.stdout.write(`secret printed by the tests: ${leak}\n`);
  process.stdout.write(`secrets: ${leaks.length === 0 ? 'ok, none was printed' : 'FAILED'}\n`);
  return tallyOfCheck(leaks.length);
}

async function runEverything(folder: string): Promise<Tally> {
  const checks = await runChecks(folder);
  await installPeers(folder);
  return sum([
    checks,
    await runVitest(['unit', 'full', 'alone'], folder),
    await runPythonTests(root, folder),
    checkCanaries(folder),
  ]);
}

async function runQuickly(folder: string): Promise<Tally> {
  return sum([
    await runChecks(folder),
    await runVitest(['unit'], folder, { FAILKIT_QUICK: '1' }),
    checkCanaries(folder),
  ]);
}

const what = process.argv[2];
if (what !== 'check' && what !== 'all') throw new Error(`say \`check\` or \`all\`, not ${what}`);
process.stdout.write(`Node ${process.version}\n`);
const folder = openCanaryFolder();
const tally = await (what === 'all' ? runEverything(folder) : runQuickly(folder));
for (const skip of tally.skipped) process.stdout.write(`skipped: ${skip.name}: ${skip.reason}\n`);
for (const line of stubLines(tally)) process.stdout.write(`${line}\n`);
if (tally.failed === 0) removeCanaryFolder(folder);
else process.stdout.write(`everything that was printed: ${folder}\n`);
process.stdout.write(`${lastLine(tally)}\n`);
process.exitCode = tally.failed === 0 ? 0 : 1;
