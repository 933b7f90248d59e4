import * as z from 'zod';
import { addMark, type Marks } from './marks.ts';
import { listNodes, parse } from './qemu-disks.ts';
import type { QmpClient } from './qmp-client.ts';

/**
 * The graph of a disk with a thread of its own is changed only while no request is under way: QEMU 7.2 ends where it has to wait for one.
 * A mark tells the next run that it was us who stopped the guest, should we be killed meanwhile.
 */

const status = z.object({ status: z.string() });

/** Returns what `work` does, and for how long the guest stood still for it. A guest that does not run is left as it is. */
export async function whilePaused<T>(
  qmp: QmpClient,
  marks: Marks,
  node: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly pausedMs: number }> {
  if ((await statusOf(qmp, signal)) !== 'running') return { result: await work(), pausedMs: 0 };
  const never = new AbortController().signal;
  const mark = { node, name: marks.paused };
  await qmp.run(...addMark(node, marks.paused), signal);
  const started = performance.now();
  try {
    // Not to be broken off: who knows then whether it runs.
    await qmp.run('stop', {}, never);
    const result = await work();
    return { result, pausedMs: performance.now() - started };
  } finally {
    if (qmp.lost === null) {
      await qmp.run('cont', {}, never);
      await qmp.run('block-dirty-bitmap-remove', mark, never);
    }
  }
}

/** Lets a guest go on that an agent stopped and was killed before it could. */
export async function resumePaused(qmp: QmpClient, marks: Marks, signal: AbortSignal): Promise<void> {
  for (const { node, bitmaps } of await listNodes(qmp, signal)) {
    if (!bitmaps.includes(marks.paused)) continue;
    if ((await statusOf(qmp, signal)) === 'paused') await qmp.run('cont', {}, signal);
    await qmp.run('block-dirty-bitmap-remove', { node, name: marks.paused }, signal);
  }
}

/** `paused` is who was told to stop; one that ended, panicked or met an error has words of its own. */
async function statusOf(qmp: QmpClient, signal: AbortSignal): Promise<string> {
  return parse(status, await qmp.run('query-status', {}, signal), 'query-status').status;
}
