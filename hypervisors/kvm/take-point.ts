import { QuiesceUnavailable } from '../errors.ts';
import type { SnapshotOptions } from '../hypervisor.ts';
import { freezeGuest, GuestAgentFailed, thawGuest } from './guest-agent.ts';
import type { QmpControl } from './kvm-machine.ts';
import type { Marks } from './marks.ts';
import { insertFilters, showFrozenDisks } from './push-disks.ts';
import type { QmpClient } from './qmp-client.ts';
import type { TakenDisk } from './taken-disk.ts';
import { whilePaused } from './while-paused.ts';

/** The instant: one transaction for all disks, inside a frozen guest where that can be had. The guest is thawed whatever happens. */

const granularityBytes = 64 * 1024;

export interface TakenPoint {
  readonly takenAt: Date;
  readonly quiesced: boolean;
  /** How long the guest stood still, frozen by its agent or stopped by QEMU; null: not at all. */
  readonly frozenMs: number | null;
}

export async function takePoint(
  qmp: QmpClient,
  machineName: string,
  { guestAgentSocket }: QmpControl,
  disks: readonly TakenDisk[],
  marks: Marks,
  { quiesce }: SnapshotOptions,
  signal: AbortSignal,
): Promise<TakenPoint> {
  const unfrozen = async (): Promise<TakenPoint> => {
    const { takenAt, pausedMs } = await take(qmp, disks, marks, signal);
    return { takenAt, quiesced: false, frozenMs: pausedMs === 0 ? null : pausedMs };
  };
  if (quiesce === 'off') return await unfrozen();
  const since = await freeze(guestAgentSocket, signal);
  if (typeof since !== 'number') {
    if (quiesce === 'prefer') return await unfrozen();
    throw new QuiesceUnavailable(`machine ${machineName} can't be frozen: ${since.message}`, { cause: since });
  }
  let takenAt: Date;
  try {
    takenAt = (await take(qmp, disks, marks, signal)).takenAt;
  } finally {
    if (guestAgentSocket !== null) await thawGuest(guestAgentSocket);
  }
  return { takenAt, quiesced: true, frozenMs: performance.now() - since };
}

/** Since when the guest stands still, or why it does not. */
async function freeze(socket: string | null, signal: AbortSignal): Promise<number | GuestAgentFailed> {
  if (socket === null) return new GuestAgentFailed('guestAgent is not configured');
  try {
    return await freezeGuest(socket, signal);
  } catch (error) {
    if (error instanceof GuestAgentFailed) return error;
    throw error;
  }
}

async function take(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  signal: AbortSignal,
): Promise<{ readonly takenAt: Date; readonly pausedMs: number }> {
  const actions = disks.flatMap((taken) => actionsFor(taken, marks));
  const begin = async (): Promise<Date> => {
    const takenAt = new Date();
    await qmp.run('transaction', { actions }, signal);
    return takenAt;
  };
  const pushed = disks.filter(({ mode }) => mode === 'push');
  const [first] = pushed;
  if (first === undefined) return { takenAt: await begin(), pausedMs: 0 };
  const { result, pausedMs } = await whilePaused(qmp, marks, first.disk.node, signal, async () => {
    await insertFilters(qmp, pushed, marks, signal);
    const takenAt = await begin();
    await showFrozenDisks(qmp, pushed, marks, signal);
    return takenAt;
  });
  return { takenAt: result, pausedMs };
}

function actionsFor({ index, disk, tracking, mode }: TakenDisk, marks: Marks): readonly object[] {
  const { node, canPersist } = disk;
  const copies = [...tracking.frozen].flatMap(([name, copy]) => [
    { type: 'block-dirty-bitmap-add', data: { node, name: copy, granularity: granularityBytes, disabled: true } },
    { type: 'block-dirty-bitmap-merge', data: { node, target: copy, bitmaps: [name] } },
  ]);
  const record = { node, name: tracking.added, granularity: granularityBytes, persistent: canPersist };
  const keep = { 'job-id': marks.job(index), device: node, target: marks.node(index), sync: 'none' };
  return [
    ...copies,
    { type: 'block-dirty-bitmap-add', data: record },
    ...(mode === 'pull' ? [{ type: 'blockdev-backup', data: keep }] : []),
  ];
}
