import type { ModelDisk } from '../fakes/model-disk.ts';
import type { ModelMachine } from '../fakes/model-machine.ts';
import type { Fill, GuestStep } from './history.ts';

/** Carries out what happens to the machine between runs. */
export function carryOut(step: GuestStep, machine: ModelMachine, newLabel: () => string): void {
  if (step.do === 'add-disk') {
    machine.addDisk(newLabel(), step.bytes, step.style);
  } else if (step.do === 'attach') {
    if (step.bytes === 0 && machine.attachments.has(step.name)) machine.attachments.delete(step.name);
    else machine.attachments.set(step.name, filled(step.bytes, step.seed, step.seed % 2 === 0));
  } else {
    const disk = [...machine.disks.values()][step.disk % machine.disks.size];
    if (disk !== undefined) changeDisk(step, machine, disk);
  }
}

function changeDisk(
  step: Exclude<GuestStep, { do: 'add-disk' | 'attach' }>,
  machine: ModelMachine,
  disk: ModelDisk,
): void {
  switch (step.do) {
    case 'write': {
      const { offset, length } = placeOf(step, disk);
      disk.write(offset, contentOf(step.fill, disk, offset, length));
      return;
    }
    case 'discard': {
      const { offset, length } = placeOf(step, disk);
      disk.discard(offset, length);
      return;
    }
    case 'resize':
      disk.resize(step.bytes);
      return;
    case 'lose-tracking':
      disk.loseTracking(step.afterExtents);
      return;
    case 'remove-disk':
      machine.disks.delete(disk.label);
      machine.excluded.delete(disk.label);
      return;
    case 'exclude-or-include':
      if (!machine.excluded.delete(disk.label)) machine.excluded.set(disk.label, 'an independent disk');
      return;
  }
}

function placeOf(step: { at: number; length: number }, disk: ModelDisk): { offset: number; length: number } {
  const { capacityBytes } = disk.content;
  const offset = Math.min(capacityBytes - 1, Math.floor((capacityBytes * step.at) / 9_999));
  return { offset, length: Math.min(step.length, capacityBytes - offset) };
}

function contentOf(fill: Fill, disk: ModelDisk, offset: number, length: number): Uint8Array {
  if (fill.kind === 'same') {
    const same = new Uint8Array(length);
    disk.content.read(offset, same);
    return same;
  }
  if (fill.kind === 'zero') return new Uint8Array(length);
  return filled(length, fill.seed, fill.kind === 'random');
}

/** The same bytes for the same seed; random ones do not compress, others do. */
export function filled(length: number, seed: number, random: boolean): Uint8Array {
  if (!random) return Buffer.alloc(length, `line ${seed} of a log that compresses well\n`);
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed + 1) * 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}
