import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatBytes, formatDuration } from '../agent/quantities.ts';
import { ClaimFailed, claim } from './claim.ts';
import { createScreen, type Screen } from './screen.ts';
import { tellStory } from './story.ts';

/** `npm run demo`: one machine to a bucket and back, through the real command line. Exits with 1 if anything is not as it says. */

const usage = `npm run demo [-- --keep]

Seeds, changes, syncs, kills, damages, repairs and restores a disk image in a new
folder under ${tmpdir()}, which is removed at the end unless you say --keep.
`;
const freeBytesMin = 3 * 2 ** 30;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { keep: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  const screen = createScreen(process.stdout);
  const folder = mkdtempSync(join(tmpdir(), 'failkit-demo-'));
  try {
    return await tell(folder, screen, stop.signal);
  } finally {
    if (values.keep === true) screen.aside(`Everything is still in ${folder}`);
    else rmSync(folder, { recursive: true });
  }
}

async function tell(folder: string, screen: Screen, signal: AbortSignal): Promise<number> {
  const started = performance.now();
  screen.title('Failkit: one machine to a bucket and back', `in ${folder}`);
  try {
    const { bavail, bsize } = statfsSync(folder);
    claim(
      bavail * bsize >= freeBytesMin,
      `${folder} has ${formatBytes(freeBytesMin)} free, for the image and its copies`,
    );
    await tellStory(folder, screen, signal);
    screen.end(`Everything held, in ${formatDuration(performance.now() - started)}.`);
    return 0;
  } catch (error) {
    if (signal.aborted) {
      screen.failed('Stopped.', []);
      return 130;
    }
    const what = error instanceof Error ? error.message : String(error);
    if (error instanceof ClaimFailed) screen.failed('This was claimed, and it does not hold:', what.split('\n'));
    else
      screen.failed('The demo could not go on:', (error instanceof Error ? (error.stack ?? what) : what).split('\n'));
    return 1;
  }
}
