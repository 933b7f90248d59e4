import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { checkKnownHead } from '../../replica/chain.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { openRepositorySalvage } from '../../replica/salvage-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { readAttachment } from '../../restore/restore-attachments.ts';
import { restoreDisk } from '../../restore/restore-disk.ts';
import type { RestoreWorkers } from '../../restore/restore-workers.ts';
import type { VerifyLevel } from '../../restore/verify/finding.ts';
import { verifyReplica } from '../../restore/verify/verify-replica.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { ComparingSink, WrongBytes } from './comparing-sink.ts';
import type { MachineSpecimen, Specimen } from './specimen.ts';

/** Everything that a bucket can be asked for, compared with what it must give. */

const never = new AbortController().signal;

/** Who noticed it first; `mark`: only those who remember a newer head. */
export type Level = 'restore' | 'full verify' | 'ciphertext verify' | 'mark';

/** `noticed` null: everything reads, and is right. */
export interface Outcome {
  readonly noticed: Level | null;
  readonly error: unknown;
}

/** What verify found, as an error. */
export class Found extends Error {
  override readonly name = 'Found';
  readonly code: string;

  constructor(object: string, code: string, what: string) {
    super(`${object}: ${what}`);
    this.code = code;
  }
}

export interface Reading {
  readonly specimen: Specimen;
  readonly target: StorageTarget;
  readonly workers: RestoreWorkers;
  /** What to look at: what reads nothing that was changed would only be right again. */
  readonly takes: (machine: string, point: number | null) => boolean;
}

/** Restores every point, then verifies in full, then by ciphertext, then asks the mark, until something is noticed. */
export async function readEverything(reading: Reading): Promise<Outcome> {
  const steps: readonly [Level, (machine: MachineSpecimen) => Promise<void>][] = [
    ['restore', (machine) => restorePoints(reading, machine)],
    ['full verify', (machine) => verify(reading, machine, 'full')],
    ['ciphertext verify', (machine) => verify(reading, machine, 'ciphertext')],
    ['mark', (machine) => askMark(reading, machine)],
  ];
  for (const [level, step] of steps) {
    for (const machine of reading.specimen.machines.filter(({ hex }) => reading.takes(hex, null))) {
      const outcome = await outcomeOf(level, () => step(machine));
      if (outcome.noticed !== null) return outcome;
    }
  }
  return { noticed: null, error: null };
}

/** Those who remember the head ask first: a state that once was right looks right. */
export async function askMarks(reading: Reading): Promise<Outcome> {
  for (const machine of reading.specimen.machines) {
    const outcome = await outcomeOf('mark', () => askMark(reading, machine));
    if (outcome.noticed !== null) return outcome;
  }
  return { noticed: null, error: null };
}

/** What is left after damage: never a wrong byte either, and verify has something to say. */
export async function readRemains(reading: Reading): Promise<Outcome> {
  for (const machine of reading.specimen.machines.filter(({ hex }) => reading.takes(hex, null))) {
    const outcome = await outcomeOf('restore', () => salvagePoints(reading, machine));
    if (outcome.noticed !== null && !isNamed(outcome.error)) return outcome;
    const verified = await outcomeOf('full verify', () => verify(reading, machine, 'full'));
    if (verified.noticed !== null) return verified;
  }
  return { noticed: null, error: null };
}

export function isNamed(error: unknown): error is Error & { readonly code: string } {
  return (
    error instanceof Error && 'code' in error && typeof error.code === 'string' && !/^E(RR_|[A-Z]+$)/.test(error.code)
  );
}

async function outcomeOf(level: Level, work: () => Promise<void>): Promise<Outcome> {
  try {
    await work();
    return { noticed: null, error: null };
  } catch (error) {
    return { noticed: level, error };
  }
}

async function restorePoints(reading: Reading, machine: MachineSpecimen): Promise<void> {
  const { rig } = reading.specimen;
  const repo = await openRepository(reading.target, rootFingerprint(rig.root.publicKey), never);
  using replica = await OpenReplica.open(repo, machine.id, [rig.provider], never);
  for (const point of replica.points) {
    if (reading.takes(machine.hex, point)) await restorePoint(reading, machine, replica, point);
  }
}

/** Each point by itself: what can't be read does not keep the others. */
async function salvagePoints(reading: Reading, machine: MachineSpecimen): Promise<void> {
  const { rig } = reading.specimen;
  const repo = await openRepositorySalvage(reading.target, rootFingerprint(rig.root.publicKey), never);
  using replica = await OpenReplica.open(repo, machine.id, [rig.provider], never, { salvage: true });
  for (const point of replica.points) {
    const { error } = await outcomeOf('restore', () => restorePoint(reading, machine, replica, point));
    if (error !== null && !isNamed(error)) throw error;
  }
}

async function restorePoint(
  { workers }: Reading,
  machine: MachineSpecimen,
  replica: OpenReplica,
  point: number,
): Promise<void> {
  using reader = new SegmentReader(replica.repo, machine.id, replica.keys);
  const { manifest } = await replica.openPoint(point, never);
  const expected = machine.points.get(point);
  if (expected === undefined) throw new WrongBytes(`point ${point} never was`);
  for (const disk of manifest.disks) {
    const sink = new ComparingSink(expected.disks.get(disk.label) ?? Buffer.alloc(0));
    const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
    const tools = { reader, workers, rangesInFlightMax: 4, progress };
    try {
      await restoreDisk(disk, sink, tools, never);
    } finally {
      sink.checkWritten();
    }
    await sink.complete();
  }
  for (const attachment of manifest.attachments) {
    const bytes = await readAttachment(attachment, reader, never);
    if (!sameBytes(bytes, expected.attachments.get(attachment.name) ?? new Uint8Array()))
      throw new WrongBytes(`attachment ${attachment.name} of point ${point}`);
  }
}

async function verify(reading: Reading, machine: MachineSpecimen, level: VerifyLevel): Promise<void> {
  const { rig } = reading.specimen;
  const repo = await openRepositorySalvage(reading.target, rootFingerprint(rig.root.publicKey), never);
  using replica = await OpenReplica.open(repo, machine.id, [rig.provider], never, { salvage: true });
  const options = { level, points: null, chain: true, workers: reading.workers, inFlightMax: 4 };
  const [finding] = (await verifyReplica(replica, options, never)).findings;
  if (finding !== undefined) throw new Found(finding.object, finding.code, finding.what);
}

async function askMark(reading: Reading, machine: MachineSpecimen): Promise<void> {
  const { rig } = reading.specimen;
  const repo = await openRepository(reading.target, rootFingerprint(rig.root.publicKey), never);
  using replica = await OpenReplica.open(repo, machine.id, [rig.provider], never);
  await checkKnownHead(repo, replica.chain, machine.head, never);
  const points = [...machine.points.keys()];
  if (`${replica.points}` !== `${points}`) throw new WrongBytes(`${toHex(machine.id)} has points ${replica.points}`);
}
