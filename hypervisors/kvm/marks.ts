import { randomBytes } from 'node:crypto';
import type { QmpCommand } from './qmp-client.ts';

/**
 * The names of what this agent makes inside a QEMU. Whatever carries the machine's tag is ours, and is removed when it is found left behind;
 * nothing else is touched.
 */
export interface Marks {
  readonly prefix: string;
  /** The images that keep what the guest overwrites. QEMU allows 31 characters for the name of a node. */
  node(disk: number): string;
  job(disk: number): string;
  exportName(disk: number): string;
  /** A frozen copy of a bitmap, for as long as the snapshot lasts. */
  frozenBitmap(index: number): string;
  /** Where a disk is pushed: the filter that keeps the snapshot, the snapshot itself, our server, a part of each. */
  filter(disk: number): string;
  frozenDisk(disk: number): string;
  server(disk: number): string;
  part(disk: number): string;
  serverPart(disk: number): string;
  /** Keep others from putting anything between the filter and its disk, or above the filter, that would outlive it. */
  lock(disk: number): string;
  lockBehind(disk: number): string;
  /** A bitmap on the node that the filter of this disk stands before. */
  behindFilter(disk: number): string;
  /** A bitmap that says that it was us who stopped the guest. */
  readonly paused: string;
  /** The same, of a guest that its agent was asked to freeze. */
  readonly freezing: string;
  pushJob(disk: number, nth: number): string;
  /** Of a node: whether it stands above a filter, or above what that stands before. */
  isReader(name: string): boolean;
  isOurs(name: string): boolean;
  /** The bitmaps that record from one snapshot to the next. */
  isReferencePoint(name: string): boolean;
  /** Sorts by the time at which it was made. */
  newReferencePoint(): string;
}

export function marksOf(tag: string): Marks {
  const prefix = `failkit-${tag}-`;
  return {
    prefix,
    node: (disk) => `${prefix}n${disk}`,
    job: (disk) => `${prefix}j${disk}`,
    exportName: (disk) => `${prefix}e${disk}`,
    frozenBitmap: (index) => `${prefix}frozen${index}`,
    filter: (disk) => `${prefix}f${disk}`,
    frozenDisk: (disk) => `${prefix}s${disk}`,
    server: (disk) => `${prefix}t${disk}`,
    part: (disk) => `${prefix}p${disk}`,
    serverPart: (disk) => `${prefix}q${disk}`,
    lock: (disk) => `${prefix}b${disk}`,
    lockBehind: (disk) => `${prefix}c${disk}`,
    behindFilter: (disk) => `${prefix}behind${disk}`,
    paused: `${prefix}paused`,
    freezing: `${prefix}freezing`,
    pushJob: (disk, nth) => `${prefix}push${disk}-${nth}`,
    isReader: (name) => ['s', 't', 'p', 'q', 'b', 'c'].includes(name.charAt(prefix.length)),
    isOurs: (name) => name.startsWith(prefix),
    isReferencePoint: (name) => name.startsWith(`${prefix}point-`),
    newReferencePoint: () =>
      `${prefix}point-${Date.now().toString(36).padStart(9, '0')}-${randomBytes(8).toString('hex')}`,
  };
}

/** The largest that QEMU allows: a bitmap that is only a mark takes no memory. */
const granularityMax = 2 ** 31;

export function addMark(node: string, name: string): QmpCommand {
  const mark = { node, name, granularity: granularityMax, persistent: false, disabled: true };
  return ['block-dirty-bitmap-add', mark];
}
