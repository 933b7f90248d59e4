import { expect } from 'vitest';
import type { DiskState, Manifest } from '../../replica/manifest.ts';
import type { ModelDisk } from '../fakes/model-disk.ts';
import type { ModelMachine } from '../fakes/model-machine.ts';
import type { SparseBytes } from '../fakes/sparse-bytes.ts';
import { blocksMax, type RunStep } from './history.ts';
import type { KnownPoint } from './known-point.ts';

/** What a run should say of itself, worked out from the two snapshots and nothing that the agent did. */

export interface NewestPoint {
  readonly manifest: Manifest;
  readonly known: KnownPoint;
}

/**
 * A pattern for why each disk is read in full; empty where it is not. Asked before the run. `doubted`: labels of disks that an earlier run
 * found to have lost their end, which a run that published may have mended, or not; the new ones are added.
 */
export function expectedReasons(
  machine: ModelMachine,
  newest: NewestPoint | null,
  step: RunStep,
  doubted: Set<string>,
): ReadonlyMap<string, RegExp> {
  const reasons = new Map<string, RegExp>();
  for (const [label, disk] of machine.disks) {
    const before = newest?.manifest.disks.find((candidate) => candidate.label === label);
    const { capacityBytes } = disk.content;
    if (before === undefined || capacityBytes > before.blockSize * blocksMax) reasons.set(label, /^first full copy/);
    else if (step.resync) reasons.set(label, /^resync: the operator/);
    else if (before.capacityBytes !== capacityBytes) reasons.set(label, /^resync: the disk's size changed/);
    else if (before.referencePoint === null) reasons.set(label, /^this source has no changed block tracking$/);
    else if (!disk.knows(before.referencePoint)) reasons.set(label, /^resync: disk/);
    else if (hasLostItsEnd(disk, before, newest?.known.disks.get(label))) {
      reasons.set(label, /^resync: spot check/);
      doubted.add(label);
    } else reasons.set(label, doubted.has(label) ? /^$|^resync: spot check/ : /^$/);
  }
  return reasons;
}

/** Made smaller and larger again: the last block that tracking does not name is not what it was. */
function hasLostItsEnd(disk: ModelDisk, before: DiskState, old: SparseBytes | undefined): boolean {
  if (old === undefined || before.referencePoint === null) return false;
  const named = disk.namedSince(before.referencePoint);
  const zeros = new Uint8Array(before.blockSize);
  for (let block = Math.ceil(before.capacityBytes / before.blockSize) - 1; block >= 0; block--) {
    const at = block * before.blockSize;
    const isNamed = named.some(({ offset, length }) => offset < at + before.blockSize && offset + length > at);
    const was = blockAt(old, at, before.blockSize);
    if (isNamed || Buffer.compare(was, zeros) === 0) continue;
    return Buffer.compare(was, blockAt(disk.content, at, before.blockSize)) !== 0;
  }
  return false;
}

export function expectReasons(manifest: Manifest, expected: ReadonlyMap<string, RegExp>): void {
  for (const { label, fullReadReason } of manifest.disks)
    expect(fullReadReason).toMatch(expected.get(label) ?? /never/);
}

/** Generations go up when a disk outgrows its blocks and at no other time, and always say why. */
export function expectGenerations(manifest: Manifest, newest: NewestPoint | null): void {
  for (const disk of manifest.disks) {
    const before = newest?.manifest.disks.find(({ label }) => label === disk.label);
    expect(disk.generationReason).not.toBe('');
    if (before === undefined) {
      expect(disk.generation).toBe(1);
      continue;
    }
    expect(disk.diskId).toEqual(before.diskId);
    const outgrown = disk.capacityBytes > before.blockSize * blocksMax;
    expect(disk.generation - before.generation).toBe(outgrown ? 1 : 0);
    expect(disk.blockSize > before.blockSize).toBe(outgrown);
    if (!outgrown) expect(disk.generationReason).toBe(before.generationReason);
  }
}

/** Bytes of the blocks that the newest point does not have: exactly what a run has to send, whatever the tracker says. */
export function changedBytesBetween(manifest: Manifest, known: KnownPoint, newest: NewestPoint | null): number {
  let changed = 0;
  for (const disk of manifest.disks) {
    const content = known.disks.get(disk.label);
    const before = newest?.manifest.disks.find(({ label }) => label === disk.label);
    const old = before?.generation === disk.generation ? newest?.known.disks.get(disk.label) : undefined;
    if (content !== undefined) changed += changedBlocks(disk, content, old) * disk.blockSize;
  }
  return changed;
}

function changedBlocks(disk: DiskState, content: SparseBytes, old: SparseBytes | undefined): number {
  const zeros = new Uint8Array(disk.blockSize);
  let changed = 0;
  for (let at = 0; at < disk.capacityBytes; at += disk.blockSize) {
    const block = blockAt(content, at, disk.blockSize);
    if (Buffer.compare(block, zeros) === 0) continue;
    if (old === undefined || Buffer.compare(block, blockAt(old, at, disk.blockSize)) !== 0) changed++;
  }
  return changed;
}

/** Padded with zeros where the disk ends. */
function blockAt(content: SparseBytes, at: number, blockSize: number): Uint8Array {
  const block = new Uint8Array(blockSize);
  const length = Math.min(blockSize, content.capacityBytes - at);
  if (length > 0) content.read(at, block.subarray(0, length));
  return block;
}
