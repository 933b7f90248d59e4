import { freezeGuest, GuestAgentFailed, GuestStillFrozen, thawGuest } from './guest-agent.ts';
import { addMark, type Marks } from './marks.ts';
import { listNodes } from './qemu-disks.ts';
import type { QmpClient } from './qmp-client.ts';
import { resumePaused } from './while-paused.ts';

/**
 * The guest is frozen by its own agent, and thawed whatever happens. A mark in QEMU tells whoever comes after us that it was us who froze it,
 * should we be killed meanwhile: the guest of somebody else is left as it is.
 */

interface Frozen<T> {
  readonly result: T;
  readonly frozenMs: number;
  /** The guest was still frozen when `work` had ended: some thaw themselves after a while. */
  readonly wasFrozen: boolean;
}

/** What `work` came to, or why the guest could not be frozen; `work` was not begun then. */
export async function whileFrozen<T>(
  qmp: QmpClient,
  marks: Marks,
  node: string,
  socket: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<Frozen<T> | GuestAgentFailed> {
  await qmp.run(...addMark(node, marks.freezing), signal);
  try {
    const frozen = await freezeAndWork(socket, signal, work);
    await removeMark(qmp, node, marks);
    return frozen;
  } catch (error) {
    // Where the guest is frozen still, the mark stays for whoever comes next.
    if (qmp.lost === null && !(error instanceof GuestStillFrozen)) await removeMark(qmp, node, marks);
    if (error instanceof GuestAgentFailed) return error;
    throw error;
  }
}

async function freezeAndWork<T>(socket: string, signal: AbortSignal, work: () => Promise<T>): Promise<Frozen<T>> {
  const since = await freezeGuest(socket, signal);
  const result = await work().catch(async (error: unknown) => {
    await thawGuest(socket);
    throw error;
  });
  const wasFrozen = await thawGuest(socket);
  return { result, frozenMs: performance.now() - since, wasFrozen };
}

/** Thaws a guest that an agent froze and was killed before it could; where it stopped it, too, it goes on first, for what stands still does not answer. */
export async function thawLeftFrozen(
  qmp: QmpClient,
  marks: Marks,
  socket: string | null,
  signal: AbortSignal,
): Promise<void> {
  await resumePaused(qmp, marks, signal);
  const marked = (await listNodes(qmp, signal)).filter(({ bitmaps }) => bitmaps.includes(marks.freezing));
  // One that does not answer any more was switched off since, or is beyond our help: nothing is worse for going on.
  if (marked.length > 0 && socket !== null) await thawGuest(socket).catch(() => undefined);
  for (const { node } of marked) await removeMark(qmp, node, marks);
}

async function removeMark(qmp: QmpClient, node: string, marks: Marks): Promise<void> {
  await qmp.run('block-dirty-bitmap-remove', { node, name: marks.freezing }, new AbortController().signal);
}
