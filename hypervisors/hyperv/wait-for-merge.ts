import { win32 } from 'node:path';
import { pause } from '../vsphere/pause.ts';
import { enableMerging, type HypervState } from './hyperv-calls.ts';
import { HypervSnapshotStuck } from './hyperv-errors.ts';
import { pollPauseMs } from './hyperv-machine.ts';
import { type HypervSite, isMerging, readState } from './hyperv-site.ts';

/** Where a checkpoint is removed, Hyper-V merges what was written meanwhile into the disk. Until it has, no other one is taken. */

export async function waitForMerge(site: HypervSite, signal: AbortSignal): Promise<void> {
  const { machine, pace, client } = site;
  const end = Date.now() + pace.mergeMs;
  let asked = (await readState(site, signal)).mergesDisks ? 0 : 1;
  if (asked > 0) await enableMerging(client, machine.vm, signal);
  for (let attempt = 0; ; attempt++) {
    const state = await readState(site, signal);
    const behind = unmerged(state);
    if (behind.length === 0 && !isMerging(state)) return;
    // Whatever switched it off, a failed merge among others: it is Hyper-V's own way of going on.
    const stands = !isMerging(state) && asked < asksMax;
    if (stands) {
      asked++;
      await enableMerging(client, machine.vm, signal);
    } else if (!isMerging(state) || Date.now() >= end)
      throw new HypervSnapshotStuck(
        `machine ${machine.name}: Hyper-V does not merge ${behind.join(', ') || 'its disks'}: see its event log (VMMS 19100), free space, and who holds the files; no other checkpoint is taken before that is mended`,
      );
    await pause(pollPauseMs(pace, attempt), signal);
  }
}

/** It begins to merge some moments after it was told to. */
const asksMax = 20;

/** Without any checkpoint, a machine runs on its disks themselves. With one of somebody's that stays, nobody can tell. */
function unmerged({ checkpoints, disks }: HypervState): readonly string[] {
  if (checkpoints.length > 0) return [];
  return disks.flatMap(({ path }) => (['.avhdx', '.avhd'].includes(win32.extname(path).toLowerCase()) ? [path] : []));
}
