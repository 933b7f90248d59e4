import * as z from 'zod';
import { ChangeTrackingLost } from '../errors.ts';

/** The moment of a snapshot, and all that must still hold when somebody asks what changed since. */
export interface VsphereReferencePoint {
  readonly changeId: string;
  /** Of the disk. */
  readonly identity: string | null;
  readonly capacityBytes: number;
  readonly instanceUuid: string | null;
  /** Of the vCenter. */
  readonly server: string | null;
  /** vSphere gives a machine another one when it goes back to a snapshot, or is cloned. */
  readonly machineGeneration: string | null;
  /** Whether there were snapshots besides ours: the machine may go back to one. */
  readonly hadOthers: boolean;
}

const schema = z.strictObject({
  version: z.literal(1),
  changeId: z.string(),
  identity: z.string().nullable(),
  capacityBytes: z.number(),
  instanceUuid: z.string().nullable(),
  server: z.string().nullable(),
  machineGeneration: z.string().nullable(),
  /** Points of earlier releases do not say. */
  hadOthers: z.boolean().default(true),
});

export function encodeReferencePoint(point: VsphereReferencePoint): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ version: 1, ...point }));
}

/** Throws ChangeTrackingLost. */
function decodeReferencePoint(label: string, bytes: Uint8Array): VsphereReferencePoint {
  try {
    return schema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)));
  } catch (cause) {
    throw new ChangeTrackingLost(`the last point of disk ${label} was not read from vSphere`, { cause });
  }
}

/** Returns the change id to ask by, or throws ChangeTrackingLost with the reason: each one makes the answer a guess. */
export function changeIdSince(label: string, since: Uint8Array, now: VsphereReferencePoint | null): string {
  const then = decodeReferencePoint(label, since);
  const lost = (why: string): ChangeTrackingLost => new ChangeTrackingLost(`disk ${label}: ${why}`);
  if (now === null) throw lost('vSphere does not track its changes any more');
  if (then.server !== now.server) throw lost('the machine moved to another vCenter');
  if (then.instanceUuid !== now.instanceUuid) throw lost('it belongs to another machine now');
  if (then.identity !== now.identity) throw lost('another disk is attached in its place');
  if (now.identity === null) throw lost('it has no UUID, so that nobody could tell whether it is still the same disk');
  if (then.capacityBytes !== now.capacityBytes)
    throw lost(`its size changed from ${then.capacityBytes} to ${now.capacityBytes} bytes`);
  if (then.machineGeneration !== now.machineGeneration)
    throw lost('the machine went back to a snapshot, or is a clone (its generation id changed)');
  if (now.machineGeneration === null && then.hadOthers)
    throw lost('the machine had snapshots that it may have gone back to, and has no generation id that would tell');
  const [before, after] = [parseChangeId(then.changeId), parseChangeId(now.changeId)];
  if (before.tracker !== after.tracker) throw lost('changed block tracking was switched off and on, or reset, since');
  if (before.count > after.count) throw lost('its change ids run backwards: the machine went back to a snapshot');
  return then.changeId;
}

/** `52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81`: who tracks, and how often it was asked to begin anew. */
function parseChangeId(changeId: string): { readonly tracker: string; readonly count: number } {
  const [, tracker = changeId, count = '0'] = /^(.*)\/(\d{1,15})$/.exec(changeId) ?? [];
  return { tracker, count: Number(count) };
}
