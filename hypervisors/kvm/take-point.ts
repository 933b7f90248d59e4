import { QuiesceUnavailable } from '../errors.ts';
import type { SnapshotOptions } from '../hypervisor.ts';
import { GuestAgentFailed } from './guest-agent.ts';
import type { QmpControl } from './kvm-machine.ts';
import type { Marks } from './marks.ts';
import { insertFilters, type PushPlace, showFrozenDisks } from './push-disks.ts';
import type { QmpClient } from './qmp-client.ts';
import type { TakenDisk } from './taken-disk.ts';
import { whileFrozen } from './while-frozen.ts';
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
  place: PushPlace,
  { quiesce }: SnapshotOptions,
  signal: AbortSignal,
): Promise<TakenPoint> {
  const unavailable = (why: string, cause?: unknown): QuiesceUnavailable =>
    new QuiesceUnavailable(`machine ${machineName} can't be frozen: ${why}`, { cause });
  const unfrozen = async (): Promise<TakenPoint> => {
    const { takenAt, pausedMs } = await take(qmp, disks, place, signal);
    return { takenAt, quiesced: false, frozenMs: pausedMs === 0 ? null : pausedMs };
  };
  const [first] = disks;
  if (quiesce === 'off' || first === undefined) return await unfrozen();
  if (guestAgentSocket === null) {
    if (quiesce === 'require') throw unavailable('guestAgent is not configured');
    return await unfrozen();
  }
  const frozen = await whileFrozen(qmp, place.marks, first.disk.node, guestAgentSocket, signal, () =>
    take(qmp, disks, place, signal),
  );
  if (frozen instanceof GuestAgentFailed) {
    if (quiesce === 'require') throw unavailable(frozen.message, frozen);
    return await unfrozen();
  }
  const { result, frozenMs, wasFrozen } = frozen;
  if (!wasFrozen && quiesce === 'require') throw unavailable('it did not stay frozen until the snapshot was taken');
  return { takenAt: result.takenAt, quiesced: wasFrozen, frozenMs };
}

async function take(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  place: PushPlace,
  signal: AbortSignal,
): Promise<{ readonly takenAt: Date; readonly pausedMs: number }> {
  const { marks } = place;
  const begin = async (): Promise<Date> => {
    const takenAt = new Date();
    await qmp.run('transaction', { actions: disks.flatMap((taken) => instantOf(taken, marks)) }, signal);
    // Afterwards: a write that ends while QEMU waits for those under way is in the snapshot, and only then in the bitmap.
    const copies = disks.flatMap(frozenCopies);
    if (copies.length > 0) await qmp.run('transaction', { actions: copies }, signal);
    return takenAt;
  };
  const pushed = disks.filter(({ mode }) => mode === 'push');
  const [first] = pushed;
  if (first === undefined) return { takenAt: await begin(), pausedMs: 0 };
  const { result, pausedMs } = await whilePaused(qmp, marks, first.disk.node, signal, async () => {
    await insertFilters(qmp, pushed, place, signal);
    const takenAt = await begin();
    await showFrozenDisks(qmp, pushed, marks, signal);
    return takenAt;
  });
  return { takenAt: result, pausedMs };
}

/** The new bitmap comes first: it records what is written from the instant on, and perhaps a little more. */
function instantOf({ index, disk, tracking, mode }: TakenDisk, marks: Marks): readonly object[] {
  const { node, canPersist } = disk;
  const record = { node, name: tracking.added, granularity: granularityBytes, persistent: canPersist };
  const keep = { 'job-id': marks.job(index), device: node, target: marks.node(index), sync: 'none' };
  return [
    { type: 'block-dirty-bitmap-add', data: record },
    ...(mode === 'pull' ? [{ type: 'blockdev-backup', data: keep }] : []),
  ];
}

function frozenCopies({ disk: { node }, tracking }: TakenDisk): readonly object[] {
  return [...tracking.frozen].flatMap(([name, copy]) => [
    { type: 'block-dirty-bitmap-add', data: { node, name: copy, granularity: granularityBytes, disabled: true } },
    { type: 'block-dirty-bitmap-merge', data: { node, target: copy, bitmaps: [name] } },
  ]);
}
