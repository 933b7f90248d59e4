import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { qemuImg } from '../peers/guest.ts';
import type { Outcome } from './failkit-process.ts';

export interface ObservedRun {
  readonly outcome: Outcome;
  /** Of each disk by its label: a raw copy that another program made at the instant of the snapshot. Empty when the run took none. */
  readonly oracle: ReadonlyMap<string, string>;
}

const pointTimeoutMs = 120_000;

/** Whether the run took its snapshot, as soon as it has. A run of few blocks may be over before anybody looked. */
export async function madeBeforeItEnds(made: () => Promise<boolean>, ended: Promise<unknown>): Promise<boolean> {
  const over = ended.then(() => 'over' as const);
  const until = performance.now() + pointTimeoutMs;
  for (;;) {
    if (await made()) return true;
    const state = await Promise.race([over, sleep(10)]);
    if (state === 'over') return made();
    if (performance.now() > until) return false;
  }
}

/** Restores a point of the machine `web`. Labels of disks that differ from the oracle's; the copies are removed. */
export async function differingDisks(
  site: { readonly folder: string; failkit(...args: readonly string[]): Promise<Outcome> },
  point: string,
  oracle: ObservedRun['oracle'],
): Promise<readonly string[]> {
  const to = join(site.folder, `restored-${point}`);
  const { exitCode, stderr } = await site.failkit('restore', 'web', '--to', to, '--point', point);
  if (exitCode !== 0) throw new Error(stderr);
  const differing: string[] = [];
  for (const [label, copy] of oracle) {
    const compared = qemuImg(['compare', '-f', 'raw', '-F', 'raw', copy, join(to, `${label}.raw`)]);
    const same = await compared.then(
      () => true,
      () => false,
    );
    if (!same) differing.push(label);
    await rm(copy);
  }
  await rm(to, { recursive: true });
  return differing;
}
