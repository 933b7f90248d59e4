/** One random history of a machine of the model: writes, runs, failures, deaths; after each run, what was replicated is what was frozen. */
import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { ChangeTrackingLost } from '../../../hypervisors/errors.ts';
import type { BlockSource, MachineSnapshot, ReferencePoint } from '../../../hypervisors/hypervisor.ts';
import { Random } from '../../random.ts';
import { freeSilently, guidOf } from './model-disk.ts';
import type { ModelFailure } from './model-host.ts';
import { ModelLab } from './model-lab.ts';

const never = new AbortController().signal;
const runsOfOne = 5;
const mebibyte = 2 ** 20;

interface Replicated {
  readonly bytes: Buffer;
  readonly since: ReferencePoint;
}
type Replica = ReadonlyMap<string, Replicated>;

interface Held {
  readonly replica: Replica;
  /** The run that published it ended as it should. */
  readonly isSettled: boolean;
}

interface Tally {
  synced: number;
  resynced: number;
  failed: number;
  died: number;
  published: number;
  codes: Map<string, number>;
}

/** `FAILKIT_HYPERV_SEED` repeats one. */
export async function histories(count: number): Promise<Tally> {
  const { FAILKIT_HYPERV_SEED: given } = process.env;
  const first = given === undefined ? randomBytes(4).readUInt32LE() : Number(given);
  const tally = { synced: 0, resynced: 0, failed: 0, died: 0, published: 0, codes: new Map<string, number>() };
  const seeds = Array.from({ length: given === undefined ? count : 1 }, (_, i) => (first + i) >>> 0);
  // Waiting for the disk of the journal is most of it.
  await Promise.all(
    Array.from({ length: lanes }, (_, lane) => inOrder(seeds.filter((_seed, i) => i % lanes === lane))),
  );
  return tally;

  async function inOrder(some: readonly number[]): Promise<void> {
    for (const seed of some)
      await history(seed, tally).catch((cause: unknown) => {
        throw new Error(`FAILKIT_HYPERV_SEED=${seed}: ${cause instanceof Error ? cause.message : cause}`, { cause });
      });
  }
}

const lanes = 4;

async function history(seed: number, tally: Tally): Promise<void> {
  const random = new Random(seed);
  using lab = new ModelLab();
  const { model } = lab;
  model.addDisk('scsi0:0', Buffer.alloc(2 * mebibyte + 512 * random.below(100)));
  if (random.chance(0.5)) model.addDisk('scsi0:1', Buffer.alloc(mebibyte));
  model.manners.keepsNames = random.chance(0.7);
  model.manners.saysWhatItMade = random.chance(0.8);
  model.manners.clockAheadMs = random.pick([0, 0, 7_200_000, -7_200_000]);
  let held: Held = { replica: new Map(), isSettled: true };
  for (let i = 0; i < runsOfOne; i++) {
    somethingHappens(lab, random, held);
    if (random.chance(0.35)) lab.death = { after: 1 + random.below(45), happens: random.chance(0.5) };
    const last = i === runsOfOne - 1;
    if (last) heal(lab);
    if (last && random.chance(0.5)) giveBack(lab, random);
    held = await run(lab, random, held, last, tally);
    lab.death = null;
    if (last) expectNothingLeft(lab);
  }
}

/** Every way in which a run may end; whatever it was, the next one begins in a process of its own. */
async function run(
  lab: ModelLab,
  random: Random,
  { replica, isSettled }: Held,
  isHealed: boolean,
  tally: Tally,
): Promise<Held> {
  const pointsBefore = oursOf(lab);
  let published: Replica | null = null;
  let [ended, noted] = [false, false];
  const resync = random.chance(0.05);
  try {
    await using connection = lab.connect();
    const since = new Map(resync ? [] : [...replica].map(([label, { since: point }]) => [label, point]));
    const snapshot = await connection.snapshot(
      { name: 'web' },
      { quiesce: 'prefer', whenChanging: 'refuse', since },
      never,
    );
    const held = new Map(lab.model.disks.map(({ label, frozen }) => [label, frozen.at(-1)?.content]));
    const taken = await readAll(lab, random, snapshot, resync ? new Map() : replica, held, tally, isHealed);
    if (taken !== null && (isHealed || random.chance(0.9))) {
      published = taken;
      tally.published++;
      // Nobody hears that it was published: the run dies just then, or only thinks that it failed.
      const fate = isHealed ? 9 : random.below(10);
      noted = fate > 1;
      if (noted) snapshot.notePublished?.();
      if (fate === 0) lab.death = { after: 0, happens: false };
    }
    await snapshot[Symbol.asyncDispose]();
    ended = true;
  } catch (error) {
    if (isHealed) throw error;
    const code = codeOf(error);
    tally.codes.set(code, (tally.codes.get(code) ?? 0) + 1);
    if (lab.death !== null && lab.death.after <= 0) tally.died++;
    else tally.failed++;
    expect(expectedCodes, String(error instanceof Error ? error.stack : error)).toContain(code);
    // Whatever fails, one stays by which the next changes are asked: that of the last point, or one that stood in for it.
    // A resync asks by none, and where its checkpoint becomes no reference point, there is none to ask by.
    if (isSettled && pointsBefore.length > 0 && (published === null || !resync))
      expect(oursOf(lab).length).toBeGreaterThan(0);
  }
  if (ended) expectTidy(lab);
  if (published === null) return { replica, isSettled };
  return { replica: published, isSettled: ended && noted };
}

const expectedCodes = [
  ...['HYPERV_UNREACHABLE', 'HYPERV_BUSY', 'HYPERV_REFUSED', 'HYPERV_SNAPSHOT_STUCK', 'HYPERV_ELSEWHERE'],
  ...['HYPERV_SNAPSHOT_GONE', 'HYPERV_ANSWER_INVALID'],
];

function codeOf(error: unknown): string {
  if (error instanceof SuppressedError) return codeOf(error.error);
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

/** Null: the run failed before it had everything. */
async function readAll(
  lab: ModelLab,
  random: Random,
  snapshot: MachineSnapshot,
  replica: Replica,
  held: ReadonlyMap<string, Buffer | undefined>,
  tally: Tally,
  isHealed: boolean,
): Promise<Replica | null> {
  const taken = new Map<string, Replicated>();
  for (const disk of snapshot.disks) {
    writeSomewhere(lab, random, random.below(3));
    // It moves while it is read, and takes everything along.
    if (!isHealed && random.chance(0.02)) lab.model.manners.owner = 'HV-NODE-2';
    const bytes = await replicate(disk, replica.get(disk.label) ?? null, tally);
    if (Buffer.compare(bytes, held.get(disk.label) ?? Buffer.alloc(0)) !== 0)
      throw new Error(`disk ${disk.label} is not what it was at the checkpoint`);
    taken.set(disk.label, { bytes, since: disk.referencePoint });
  }
  expect(await snapshot.settleConsistency(never)).toMatch(/^(application|crash)-consistent$/);
  return taken;
}

async function replicate(disk: BlockSource, held: Replicated | null, tally: Tally): Promise<Buffer> {
  if (held !== null && held.bytes.length === disk.capacityBytes)
    try {
      const bytes = Buffer.from(held.bytes);
      await apply(disk, held.since, bytes);
      tally.synced++;
      return bytes;
    } catch (error) {
      if (!(error instanceof ChangeTrackingLost)) throw error;
    }
  tally.resynced++;
  const bytes = Buffer.alloc(disk.capacityBytes);
  await apply(disk, null, bytes);
  return bytes;
}

async function apply(disk: BlockSource, since: ReferencePoint, bytes: Buffer): Promise<void> {
  for await (const { offset, length, zero } of disk.changedExtents(since, never))
    if (zero) bytes.fill(0, offset, offset + length);
    else await disk.read(offset, bytes.subarray(offset, offset + length), never);
}

function somethingHappens(lab: ModelLab, random: Random, { isSettled }: Held): void {
  const { model } = lab;
  const { manners } = model;
  writeSomewhere(lab, random, random.below(12));
  const isFree = model.checkpoints.length === 0 && model.merging === 0 && model.jobs.every(isOver);
  const some = random.pick(model.disks);
  if (random.chance(0.06)) some.epoch++;
  if (random.chance(0.05) && isFree) resize(lab, some.label, random);
  if (random.chance(0.04) && isFree) exchange(lab, some.label);
  if (random.chance(0.04)) loseOurPoint(lab);
  // Made between a death in the middle of a conversion and the next run, nobody can tell it from ours: then neither is touched.
  if (random.chance(0.06) && isSettled) model.makeForeignPoint();
  if (random.chance(0.08) && isFree) model.makeCheckpoint('before the upgrade', false);
  if (random.chance(0.05) && isFree) model.makeCheckpoint('another product', true);
  else if (random.chance(0.6) && model.merging === 0) removeForeign(lab);
  manners.owner = random.chance(0.05) ? 'HV-NODE-2' : null;
  manners.enabledState = random.pick([2, 2, 2, 2, 3, 3, random.pick([2, 9, 6])]);
  manners.vssFails = random.chance(0.1);
  manners.jobStates = random.pick([[], [2, 3, 4], [2, 2, 4, 5, 6], [4]]);
  manners.jobsRemembered = random.pick([1000, 1000, 3]);
  manners.windowBytes = random.pick([0, 0, 65_536, 300_000]);
  manners.unaligned = random.chance(0.5);
  manners.mergesDisks = random.chance(0.9);
  manners.mergeRefusals = random.pick([0, 0, 0, 0, 2, 30]);
  manners.failures = random.chance(0.25) ? [{ op: random.pick(operations), failure: madeFailure(random) }] : [];
}

const operations = ['checkpoint', 'convert', 'convert', 'destroy-checkpoint', 'destroy-reference-point', 'changes'];

function madeFailure(random: Random): ModelFailure {
  return {
    jobState: random.pick([null, 8, 9, 10] as const),
    returnValue: random.pick([5, 32_768, 32_769, 32_773, 32_774, 32_775, 32_779]),
    hresult: random.pick([null, '0x80070020', '0xC03A0020', '0xC03A0022']),
    happensAnyway: random.chance(0.3),
  };
}

function isOver({ states }: { readonly states: readonly number[] }): boolean {
  return states.length === 0;
}

/** The last run of a history meets nothing that could hinder it. */
function heal(lab: ModelLab): void {
  const { manners } = lab.model;
  lab.death = null;
  removeForeign(lab);
  lab.model.tick();
  Object.assign(manners, { owner: null, enabledState: 2, vssFails: false, mergeRefusals: 0, failures: [] });
}

function writeSomewhere({ model }: ModelLab, random: Random, times: number): void {
  for (let i = 0; i < times; i++) {
    const { label, content } = random.pick(model.disks);
    const length = 512 * (1 + random.below(random.pick([2, 50, 300])));
    const bytes = random.chance(0.2) ? new Uint8Array(length) : randomBytes(length);
    const offset = 512 * random.below((content.length - length) / 512);
    model.write(label, offset, bytes);
  }
}

function resize({ model }: ModelLab, label: string, random: Random): void {
  const disk = model.disk(label);
  const grown = Buffer.alloc(disk.content.length + 512 * (1 + random.below(1000)));
  disk.content.copy(grown);
  disk.content = grown;
  disk.epoch++;
}

/** Only before a run that reads it: what is written there first is told by tracking alone, and the rest of its block by nobody. */
function giveBack({ model }: ModelLab, random: Random): void {
  const disk = random.pick(model.disks);
  const from = mebibyte * random.below(Math.ceil(disk.content.length / mebibyte));
  freeSilently(disk, from, random.pick([mebibyte, disk.content.length - from]));
}

/** Another disk in the same place. */
function exchange({ model }: ModelLab, label: string): void {
  const disk = model.disk(label);
  disk.identity = guidOf(`${disk.identity} another`);
  disk.content = Buffer.alloc(disk.content.length, 0x5a);
}

function loseOurPoint({ model }: ModelLab): void {
  const ours = model.points.find(({ foreign }) => !foreign);
  if (ours !== undefined) model.removePoint(ours.id);
}

function removeForeign({ model }: ModelLab): void {
  const top = model.checkpoints.at(-1);
  if (top?.foreign === true) model.removeCheckpoint(top.id);
}

function oursOf({ model }: ModelLab): readonly string[] {
  return model.points.filter(({ foreign }) => !foreign).map(({ id }) => id);
}

function expectTidy(lab: ModelLab): void {
  const { model } = lab;
  expect(model.checkpoints.filter(({ foreign }) => !foreign)).toEqual([]);
  expect(oursOf(lab).length).toBeLessThanOrEqual(1);
  if (model.checkpoints.length === 0) for (const { leaf } of model.disks) expect(leaf.path).toMatch(/\d\.vhdx$/);
}

function expectNothingLeft(lab: ModelLab): void {
  expectTidy(lab);
  expect(lab.model.jobs.filter(({ states }) => states.length > 0)).toEqual([]);
}
