/** Runs at a machine of libvirt that are killed, one after each thing that they ask of it. */
import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { expect } from 'vitest';
import { newestWrite } from '../peers/guest-writer.ts';
import { peerFolder } from '../peers/server-process.ts';
import { differingDisks } from './differing-disks.ts';
import type { Outcome } from './failkit-process.ts';
import { type LibvirtSite, observeRun } from './libvirt-site.ts';

/** A run has fewer questions to libvirt. */
const questionsMax = 60;

/** The guest goes on each time, and the next run that nobody kills recovers. */
export async function killAtEveryQuestion(site: LibvirtSite): Promise<void> {
  await site.configure({ machine: { quiesce: 'prefer' } });
  const killer = await installKiller(site.folder);
  let killed = 0;
  for (let question = 1; question <= questionsMax; question++) {
    const { exitCode } = await killer.run(site, question);
    await expectWrites(site);
    if (exitCode === 0) break;
    killed++;
  }
  expect(killed).toBeGreaterThan(8);
  expect(killed).toBeLessThan(questionsMax);
  await site.configure();
  await expectCleanSync(site);
}

/** A sync that reads only what changed, gives the very bytes, and leaves nothing behind. */
export async function expectCleanSync(site: LibvirtSite): Promise<void> {
  const { outcome, oracle } = await observeRun(site, 'sync', 'web', '--json');
  expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
  const [published] = outcome.json<{ machines: { point: number; disks: { fullReadReason: string }[] }[] }>().machines;
  expect(published?.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
  expect(await differingDisks(site, String(published?.point), oracle)).toEqual([]);
  expect(await readdir(join(site.folder, 'scratch'))).toEqual([]);
  expect((await site.checkpoints()).length).toBeLessThanOrEqual(2);
}

export async function expectWrites(site: LibvirtSite): Promise<void> {
  const before = await newestWrite(site.guest);
  await site.guest.run('sleep 0.3');
  expect(await newestWrite(site.guest)).toBeGreaterThan(before);
}

export async function expectSuccess(site: LibvirtSite, ...args: readonly string[]): Promise<Outcome> {
  const outcome = await site.failkit(...args);
  expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
  return outcome;
}

/** A virsh that kills the agent right after the real one has answered its Nth question. */
async function installKiller(folder: string) {
  const bin = join(folder, 'killer');
  await mkdir(bin);
  const real = join(peerFolder('libvirt'), 'virsh');
  const count = join(folder, 'questions');
  // The one that stays is asked by its standard input, a line for each question, and has answered soon.
  const script = `#!/bin/sh
next() { n=$(flock ${count}.lock sh -c 'n=$(($(cat ${count}) + 1)); echo $n >${count}; echo $n'); }
if [ "$1 $2 $#" = "--quiet --connect 3" ]; then
  while IFS= read -r line; do
    next; printf '%s\\n' "$line"
    [ $n = "$KILL_AT" ] && { sleep 0.2; kill -9 $PPID; }
  done | ${real} "$@"
  exit
fi
next; ${real} "$@"; status=$?
[ $n = "$KILL_AT" ] && kill -9 $PPID
exit $status
`;
  await writeFile(join(bin, 'virsh'), script);
  await chmod(join(bin, 'virsh'), 0o755);
  return {
    async run(site: LibvirtSite, question: number) {
      await writeFile(count, '0\n');
      const PATH = `${bin}${delimiter}${process.env.PATH}`;
      return await site.failkitWith({ PATH, KILL_AT: String(question) }, 'sync', 'web');
    },
  };
}
