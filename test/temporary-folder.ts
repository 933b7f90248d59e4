/** Around all tests: a folder of this run for whatever is temporary, so that what a test leaves behind is known to be ours. */
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What an agent that was killed in the middle had for a moment; no test can know of it. */
const ofKilledAgents = /^failkit-(virsh|nbdkit|nbd)-/;
/** As the system's own: virtual machines of other users find their disks in it. */
const everybodyWrites = 0o1777;

let folder: string | null = null;

export function setup(): void {
  // A short name: the paths of sockets may have 107 characters.
  folder = mkdtempSync(join(tmpdir(), 'f'));
  chmodSync(folder, everybodyWrites);
  process.env.TMPDIR = folder;
}

export function teardown(): void {
  if (folder === null) return;
  const left = readdirSync(folder).filter((name) => name.startsWith('failkit-') && !ofKilledAgents.test(name));
  rmSync(folder, { recursive: true, force: true });
  if (left.length > 0) throw new Error(`tests left behind in ${folder}: ${left.join(', ')}`);
}
