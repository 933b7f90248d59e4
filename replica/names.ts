import { toHex } from './encoding.ts';

/** Object names of docs/format.md §1, relative to the repository's prefix. */

export const repositoryName = 'repository';
export const trustPrefix = 'trust/';
export const machinesPrefix = 'machines/';
const largest = Number.MAX_SAFE_INTEGER;

/** Place of an object that is numbered within a tenure. */
export interface SegmentId {
  readonly tenure: number;
  readonly number: number;
}

export function trustName(n: number): string {
  return `${trustPrefix}${inverted(n)}`;
}

export function machinePrefix(machineId: Uint8Array): string {
  return `${machinesPrefix}${toHex(machineId)}/`;
}

export function chainPrefix(machineId: Uint8Array): string {
  return `${machinePrefix(machineId)}chain/`;
}

export function chainEntryName(machineId: Uint8Array, seq: number): string {
  return chainPrefix(machineId) + inverted(seq);
}

/** The seq or statement number of a chain or trust name, which is `prefix` and the number; null where it is none. */
export function invertedNumberOf(name: string, prefix: string): number | null {
  const digits = name.slice(prefix.length);
  if (!/^\d{16}$/.test(digits)) return null;
  const number = largest - Number(digits);
  return Number.isSafeInteger(number) && number >= 0 ? number : null;
}

export function segmentsPrefix(machineId: Uint8Array): string {
  return `${machinePrefix(machineId)}segments/`;
}

export function segmentName(machineId: Uint8Array, id: SegmentId): string {
  return `${segmentsPrefix(machineId)}${decimal(id.tenure, 16)}/${decimal(id.number, 10)}`;
}

/** The place that a segment's name says; null where it is no segment's. */
export function segmentIdOf(name: string, machineId: Uint8Array): SegmentId | null {
  const [, tenure, number] = /^(\d{16})\/(\d{10})$/.exec(name.slice(segmentsPrefix(machineId).length)) ?? [];
  return tenure === undefined || number === undefined ? null : { tenure: Number(tenure), number: Number(number) };
}

export function controlPrefix(machineId: Uint8Array): string {
  return `${machinePrefix(machineId)}control/`;
}

export function controlName(machineId: Uint8Array, seq: number, sha256: Uint8Array): string {
  return `${controlPrefix(machineId)}${decimal(seq, 16)}-${toHex(sha256).slice(0, 32)}`;
}

/** The entry that a control object's name says; null where it is no such name. */
export function controlSeqOf(name: string, machineId: Uint8Array): number | null {
  const [, seq] = /^(\d{16})-[0-9a-f]{32}$/.exec(name.slice(controlPrefix(machineId).length)) ?? [];
  return seq === undefined ? null : Number(seq);
}

export function keyRecordsPrefix(machineId: Uint8Array): string {
  return `${machinePrefix(machineId)}keys/`;
}

export function keyRecordPrefix(machineId: Uint8Array, epoch: number): string {
  return `${keyRecordsPrefix(machineId)}${decimal(epoch, 8)}/`;
}

export function keyRecordName(machineId: Uint8Array, epoch: number, revision: number): string {
  return keyRecordPrefix(machineId, epoch) + decimal(revision, 4);
}

/** `tenure.number`, for messages and map keys. */
export function segmentKey(id: SegmentId): string {
  return `${id.tenure}.${id.number}`;
}

/** What `segmentKey` made. */
export function parseSegmentKey(key: string): SegmentId {
  const [tenure, number] = key.split('.').map(Number);
  return { tenure: tenure ?? Number.NaN, number: number ?? Number.NaN };
}

export function compareSegments(a: SegmentId, b: SegmentId): number {
  return a.tenure - b.tenure || a.number - b.number;
}

function inverted(n: number): string {
  return decimal(largest - n, 16);
}

function decimal(n: number, digits: number): string {
  return String(n).padStart(digits, '0');
}
