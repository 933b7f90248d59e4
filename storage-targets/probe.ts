import { createHash, randomBytes, randomUUID } from 'node:crypto';

import { ObjectExists, ObjectNotFound, StoreNotAtomic } from './errors.ts';
import type { StorageTarget } from './storage-target.ts';

/**
 * A store that looks first and writes later loses only some races. Many small puts find one whose gap is short, a few
 * large ones widen the gap by the time that their bodies take to arrive.
 */
const races = [
  { rounds: 4, racers: 16, bodyBytes: 1024 },
  { rounds: 6, racers: 4, bodyBytes: 1024 * 1024 },
] as const;
const refusedBytes = 64;

/**
 * Races puts of one new name with different bytes, ten times: exactly one may win, and its bytes are what is then
 * there. Else StoreNotAtomic: such a store would let two agents write one chain entry. Run by `init`; sends 24 MiB and
 * leaves ten objects, 6 MiB in all, because the running service has no permission to delete.
 */
export async function probePutIfAbsent(target: StorageTarget, signal: AbortSignal): Promise<void> {
  for (const { rounds, racers, bodyBytes } of races) {
    for (let round = 0; round < rounds; round++) await raceOnce(target, racers, bodyBytes, signal);
  }
}

async function raceOnce(target: StorageTarget, racers: number, bodyBytes: number, signal: AbortSignal): Promise<void> {
  const name = `probe/${randomUUID()}`;
  const bodies = Array.from({ length: racers }, () => new Uint8Array(randomBytes(bodyBytes)));
  const won = await Promise.all(bodies.map((bytes) => putWins(target, name, bytes, signal)));
  const winners = bodies.filter((_, racer) => won[racer]);
  const [winner] = winners;
  if (winner === undefined || winners.length > 1) {
    throw notAtomic(target, `${winners.length} of ${racers} racing puts of ${name} won, instead of one`);
  }
  if (!same(await target.get(name, null, signal), winner)) {
    throw notAtomic(target, `${name} does not hold the bytes of the put that won`);
  }
}

/**
 * A store may stop honouring conditions (a proxy in between, a changed setting), so each start puts the name that the
 * first one made and expects refusal, with what was there left alone.
 */
export async function probeRefusal(target: StorageTarget, name: string, signal: AbortSignal): Promise<void> {
  const before = await presentOrMade(target, name, signal);
  if (await putWins(target, name, new Uint8Array(randomBytes(refusedBytes)), signal)) {
    throw notAtomic(target, `${name} exists, and yet another put of it was accepted`);
  }
  if (!same(await target.get(name, null, signal), before)) {
    throw notAtomic(target, `a put of ${name} was refused, and yet changed what was there`);
  }
}

async function presentOrMade(target: StorageTarget, name: string, signal: AbortSignal): Promise<Uint8Array> {
  try {
    return await target.get(name, null, signal);
  } catch (error) {
    if (!(error instanceof ObjectNotFound)) throw error;
  }
  // Two agents may start at once: whoever loses reads what the other one put.
  await putWins(target, name, new Uint8Array(randomBytes(refusedBytes)), signal);
  return await target.get(name, null, signal);
}

async function putWins(target: StorageTarget, name: string, bytes: Uint8Array, signal: AbortSignal): Promise<boolean> {
  try {
    await target.putIfAbsent(name, bytes, { sha256: createHash('sha256').update(bytes).digest() }, signal);
    return true;
  } catch (error) {
    if (error instanceof ObjectExists) return false;
    throw error;
  }
}

function same(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

function notAtomic(target: StorageTarget, finding: string): StoreNotAtomic {
  return new StoreNotAtomic(
    `${target.description}: ${finding}. This store does not put atomically if absent: use one that does, or ask its vendor`,
  );
}
