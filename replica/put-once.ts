import { ObjectExists, ObjectNotFound } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { sameBytes } from './encoding.ts';

/** Somebody else writes to this replica: a newer tenure, or a clone of this agent. This agent must stop. */
export class Fenced extends Error {
  readonly code = 'FENCED';
  override readonly name = 'Fenced';
}

/**
 * Puts bytes under a name that only we use. A name that holds the same bytes already is our own put whose answer was
 * lost; one with other bytes means that somebody else lives our life: Fenced. Never take the next number instead.
 */
export async function putOnce(
  target: StorageTarget,
  name: string,
  bytes: Uint8Array,
  sha256: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  if (await putOrCompare(target, name, bytes, sha256, signal)) return;
  throw new Fenced(`${name} holds or held other bytes: another agent writes to this replica, or this host was cloned`);
}

/** True when the name now holds exactly these bytes, false when it holds others. */
export async function putOrCompare(
  target: StorageTarget,
  name: string,
  bytes: Uint8Array,
  sha256: Uint8Array,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await target.putIfAbsent(name, bytes, { sha256 }, signal);
    return true;
  } catch (error) {
    if (!(error instanceof ObjectExists)) throw error;
    return await holds(target, name, bytes, signal);
  }
}

/** A name that has gone since was garbage to a sweeper: then we are no longer the owner that could publish it. */
async function holds(target: StorageTarget, name: string, bytes: Uint8Array, signal: AbortSignal): Promise<boolean> {
  try {
    return sameBytes(await target.get(name, null, signal), bytes);
  } catch (error) {
    if (error instanceof ObjectNotFound) return false;
    throw error;
  }
}
