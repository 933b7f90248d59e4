import * as z from 'zod';
import { ChangeTrackingLost } from '../errors.ts';

/** The moment of a checkpoint, and all that must still hold when somebody asks what changed since. */
export interface HypervReferencePoint {
  /** Of the run journal, which knows the reference point on the host. */
  readonly run: string;
  readonly vm: string;
  /** Where the disk is attached, and who it is. */
  readonly key: string;
  readonly identity: string;
  readonly capacityBytes: number;
  readonly sectorBytes: number;
}

const schema = z.strictObject({
  version: z.literal(1),
  run: z.string(),
  vm: z.string(),
  key: z.string(),
  identity: z.string(),
  capacityBytes: z.number(),
  sectorBytes: z.number(),
});

export function encodeReferencePoint(point: HypervReferencePoint): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ version: 1, ...point }));
}

/** Null: it was not made by this source. */
export function decodeReferencePoint(bytes: Uint8Array): HypervReferencePoint | null {
  try {
    return schema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)));
  } catch {
    return null;
  }
}

/** Returns the run to ask by, or throws ChangeTrackingLost with the reason: each one makes the answer a guess. */
export function runSince(label: string, since: Uint8Array, now: HypervReferencePoint | null): string {
  const lost = (why: string): ChangeTrackingLost => new ChangeTrackingLost(`disk ${label}: ${why}`);
  const then = decodeReferencePoint(since);
  if (then === null) throw lost('its last point was not read from Hyper-V');
  if (now === null) throw lost('Hyper-V does not track its changes');
  if (then.vm !== now.vm) throw lost('it belongs to another machine now');
  if (then.identity !== now.identity || then.key !== now.key) throw lost('another disk is attached in its place');
  if (then.capacityBytes !== now.capacityBytes)
    throw lost(`its size changed from ${then.capacityBytes} to ${now.capacityBytes} bytes`);
  if (then.sectorBytes !== now.sectorBytes) throw lost('the size of its sectors changed');
  return then.run;
}
