import { randomBytes } from 'node:crypto';
import { sha256 } from '../crypto/suite.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { toHex } from './encoding.ts';
import { machinePrefix } from './names.ts';
import { putOnce } from './put-once.ts';

/**
 * Pins hold recovery points: docs/format.md §8.3. A pin is an empty object whose name says everything, so that a sweeper needs one LIST.
 * It is not signed: whoever can put one can only keep more than is needed.
 */

export interface Pin {
  readonly name: string;
  readonly point: number;
  /** How long it holds, by the store's clock, from when it was put; 0: until it is removed. */
  readonly hours: number;
  /** By the store's clock. */
  readonly modifiedMs: number;
}

/** More would not fit its name; 114 years. */
export const pinHoursMax = 999_999;
const hourMs = 3_600_000;
const empty = new Uint8Array(0);

export function pinsPrefix(machineId: Uint8Array): string {
  return `${machinePrefix(machineId)}pins/`;
}

export function isPinName(name: string): boolean {
  return /^machines\/[0-9a-f]{32}\/pins\//.test(name);
}

function pinName(machineId: Uint8Array, point: number, hours: number, id: string): string {
  return `${pinsPrefix(machineId)}${decimal(point, 16)}-${decimal(hours, 6)}-${id}`;
}

/** Puts one and gives its name. */
export async function putPin(
  target: StorageTarget,
  machineId: Uint8Array,
  point: number,
  hours: number,
  signal: AbortSignal,
): Promise<string> {
  const name = pinName(machineId, point, hours, toHex(randomBytes(8)));
  await putOnce(target, name, empty, sha256(empty), signal);
  return name;
}

/** All of a machine, whether they still hold or not, by point. A name of another form is not ours, and left alone. */
export async function readPins(
  target: StorageTarget,
  machineId: Uint8Array,
  signal: AbortSignal,
): Promise<readonly Pin[]> {
  const pins: Pin[] = [];
  const prefix = pinsPrefix(machineId);
  for await (const { name, modified } of target.list(prefix, {}, signal)) {
    const [, point, hours] = /^(\d{16})-(\d{6})-[0-9a-f]{16}$/.exec(name.slice(prefix.length)) ?? [];
    if (point === undefined || hours === undefined) continue;
    pins.push({ name, point: Number(point), hours: Number(hours), modifiedMs: modified.getTime() });
  }
  return pins;
}

/** `nowMs`: by the store's clock, as `modifiedMs` is. */
export function isHolding({ hours, modifiedMs }: Pin, nowMs: number): boolean {
  return hours === 0 || modifiedMs + hours * hourMs > nowMs;
}

function decimal(n: number, digits: number): string {
  return String(n).padStart(digits, '0');
}
