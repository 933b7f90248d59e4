import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { exitCodes, remedyFor } from '../../agent/remedy.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { restoreDisk } from '../../restore/restore-disk.ts';
import { openRawSink } from '../../restore/sinks/raw-sink.ts';
import { withRetry } from '../../storage-targets/with-retry.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import { type FaultHow, FaultPlan } from './fault-plan.ts';
import { type FaultWorld, type Fork, segmentsInFlightMax } from './fault-world.ts';
import { faultyGate, faultyProvider, faultySink, faultyState, faultyTarget } from './faulty-parts.ts';

/** Fails the first I/O call of a run, then the second, … until a run meets none. */

const runMsMax = 15_000;
const stragglerMs = 5;
/** Waits that no run of a sweep needs to wait for. */
const impatient = { now: () => Date.now(), sleep: () => Promise.resolve() };

export interface SweepOptions {
  readonly how: FaultHow;
  /** Every call, or every n-th. */
  readonly stride: number;
  /** Store calls are tried again, as in the product. */
  readonly retries: boolean;
}

export interface SweepCount {
  calls: number;
  failed: number;
  succeeded: number;
  orphansMax: number;
}

/** One run under a plan: what it does, and what must hold afterwards. */
export type FaultyRun = (plan: FaultPlan, fork: Fork) => Promise<void>;

export async function sweep(
  world: FaultWorld,
  options: SweepOptions,
  run: FaultyRun,
  check: (fork: Fork) => Promise<void>,
): Promise<SweepCount> {
  const count: SweepCount = { calls: 0, failed: 0, succeeded: 0, orphansMax: 0 };
  for (let at = 1; ; at += options.stride) {
    using fork = world.fork();
    const plan = new FaultPlan(at, options.how);
    const error = await runOnce(plan, fork, run);
    if (plan.fired === null && error === null) return { ...count, calls: plan.calls };
    const where = `call ${at} (${plan.fired}) ${options.how}`;
    if (error === null) count.succeeded++;
    else requireNamed(error, where);
    if (error !== null) count.failed++;
    await requireNothingLeft(world, plan, where);
    await check(fork).catch((cause: unknown) => {
      throw new Error(`after ${where}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    });
    count.orphansMax = Math.max(count.orphansMax, (await fork.orphans()).length);
  }
}

/** What the run threw, or null. */
async function runOnce(plan: FaultPlan, fork: Fork, run: FaultyRun): Promise<unknown> {
  const timeout = new AbortController();
  const running = run(plan, fork).then(
    () => null,
    (error: unknown) => error ?? new Error('nothing was thrown'),
  );
  const hung = sleep(runMsMax, undefined, { signal: timeout.signal }).then(
    () => {
      throw new Error(`the run did not end after ${plan.fired}`);
    },
    () => null,
  );
  try {
    return await Promise.race([running, hung]);
  } finally {
    timeout.abort();
    plan.end();
  }
}

function requireNamed(error: unknown, where: string): void {
  const remedy = remedyFor(error);
  if (remedy !== null && remedy.exitCode !== exitCodes.unexpected) return;
  throw new Error(`${where}: the run failed with an error that has no name`, { cause: error });
}

async function requireNothingLeft(world: FaultWorld, plan: FaultPlan, where: string): Promise<void> {
  await sleep(stragglerMs);
  if (plan.stragglers.length > 0)
    throw new Error(`${where}: after the end of the run came ${plan.stragglers.join(', ')}`);
  if (world.machine.openSnapshots > 0) throw new Error(`${where}: a snapshot is left behind`);
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** A run of the agent with every call under the plan. */
export function faultyProtect(
  world: FaultWorld,
  { retries }: SweepOptions,
  options: Parameters<FaultWorld['rig']['protect']>[1],
): FaultyRun {
  return async (plan, fork) => {
    const faulty = faultyTarget(openMemoryTarget(fork.store), plan);
    const target = retries ? withRetry(faulty, { clock: impatient }) : faulty;
    world.machine.gate = faultyGate(plan);
    using _state = faultyState(plan);
    try {
      await world.rig.protect(world.machine, {
        ...options,
        target,
        provider: faultyProvider(world.rig.provider, plan),
        stateFolder: fork.stateFolder,
        signal: plan.signal,
      });
    } finally {
      world.machine.gate = () => Promise.resolve();
    }
  };
}

/** A restore of one point into files of the fork's folder, with every call under the plan. */
export function faultyRestore(world: FaultWorld, { retries }: SweepOptions, point: number): FaultyRun {
  return async (plan, fork) => {
    const { rig } = world;
    const { signal } = plan;
    const faulty = faultyTarget(openMemoryTarget(fork.store), plan);
    const target = retries ? withRetry(faulty, { clock: impatient }) : faulty;
    const repo = await openRepository(target, rootFingerprint(rig.root.publicKey), signal);
    using replica = await OpenReplica.open(repo, rig.machineId, [faultyProvider(rig.provider, plan)], signal);
    const { manifest } = await replica.openPoint(point, signal);
    using reader = new SegmentReader(repo, rig.machineId, replica.keys);
    const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
    const tools = { reader, workers: rig.workers.restore, rangesInFlightMax: segmentsInFlightMax, progress };
    for (const disk of manifest.disks) {
      const { capacityBytes } = disk;
      const path = fork.outputPath(disk.label);
      await using file = await openRawSink({ path, capacityBytes, force: true, contentName: `${point}` });
      const sink = faultySink(file, plan);
      await restoreDisk(disk, sink, tools, signal);
      await sink.complete(signal);
    }
  };
}
