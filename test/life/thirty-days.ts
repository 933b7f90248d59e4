import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'vitest';
import type { RetentionPolicy } from '../../replica/retention.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { Fleet } from './fleet.ts';
import { ReplicatedMachine, segmentBytes } from './replicated-machine.ts';
import { habits, LivingMachine } from './workload.ts';

/**
 * Thirty days of ten machines: a sync each hour, retention by generations, a prune each day, a sweep each third, runs that break, a key
 * rotation, a take-over, six hours without the key service. docs/operations/retention.md has what it measures.
 */

const hourMs = 3_600_000;
const days = 30;
const machinesOfFleet = 10;
const breaksEveryHours = 61;
const policy: RetentionPolicy = { last: 0, hourly: 24, daily: 7, weekly: 4, monthly: 0, yearly: 0, withinMs: 0 };
const storedPerNeededMax = 1.5;
const mebibyte = 2 ** 20;
/** What the process holds besides the bytes of the bucket may grow by so much from the sixth day to the last… */
const heldGrowthMax = 24 * mebibyte;
/** …and by this for each object that the bucket has more then: its double keeps 0.7 KiB beside the bytes, the guests a log of all writes. */
const heldPerObjectMax = 2048;

setFlagsFromString('--expose_gc');
const collectGarbage: () => void = runInNewContext('gc');

export async function liveThirtyDays(seed: number, objectLock: boolean): Promise<string> {
  await using workers = new RigWorkers();
  await using fleet = await Fleet.create(workers, objectLock);
  const kinds = [
    ...Array(4).fill(habits.database),
    ...Array(3).fill(habits.files),
    ...Array(2).fill(habits.web),
    habits.busy,
  ];
  const machines = kinds.slice(0, machinesOfFleet).map((own, i) => {
    const living = new LivingMachine(`${own.kind}-${i}`, own, seed * 100 + i);
    return new ReplicatedMachine(fleet, living, policy, seed * 1000 + i);
  });
  let before = { bytes: 0, objects: 0 };
  for (let hour = 0; hour < days * 24; hour++) {
    fleet.nowMs += hourMs;
    // From six in the morning to noon of the twenty-first day.
    fleet.keyServiceAway = hour >= 20 * 24 + 6 && hour < 20 * 24 + 12;
    for (const [i, machine] of machines.entries()) await liveOneHour(machine, hour, i, fleet.keyServiceAway);
    if (hour % 24 === 23) await endOfDay(machines, Math.floor(hour / 24));
    if (hour === 6 * 24) before = held(fleet);
  }
  const after = held(fleet);
  const heldGrowth = after.bytes - before.bytes;
  expect(heldGrowth).toBeLessThan(heldGrowthMax + (after.objects - before.objects) * heldPerObjectMax);
  for (const machine of machines) requireFewRequests(machine, objectLock);
  const summary = await judge(machines);
  return `${summary}; held after gc: ${mib(heldGrowth)} more than on day 6, with ${after.objects - before.objects} objects more in the bucket`;
}

async function liveOneHour(
  machine: ReplicatedMachine,
  hour: number,
  i: number,
  keyServiceAway: boolean,
): Promise<void> {
  machine.living.liveOneHour((hour + 1) % 24);
  if (hour === 12 * 24 + 5) await machine.rotateKey();
  const takeOver = hour === 17 * 24 + 3 && i === 1;
  if (takeOver) machine.host = 'second';
  const breaks = hour > 0 && !takeOver && !keyServiceAway && (hour + i * 7) % breaksEveryHours === 0;
  await machine.sync({ takeOver, breaks });
}

async function endOfDay(machines: readonly ReplicatedMachine[], day: number): Promise<void> {
  for (const machine of machines) await machine.prune();
  if (day % 3 !== 2) return;
  for (const machine of machines) await machine.sweep();
  const sample = machines[day % machines.length];
  expect((await sample?.wrongPoints('one'))?.wrong, `day ${day}`).toEqual([]);
}

/** What is promised of each sync, but for what follows a take-over, whose host has no map yet. */
function requireFewRequests({ costs, host, name }: ReplicatedMachine, objectLock: boolean): void {
  for (const { uploadedBytes, puts, reads, segmentReads, keyServiceCalls } of costs) {
    expect(puts, name).toBeLessThanOrEqual(Math.ceil(uploadedBytes / segmentBytes) + (objectLock ? 3 : 2));
    expect(reads, name).toBeLessThanOrEqual(host === 'first' ? 90 : 200);
    if (host === 'first') expect(segmentReads, name).toBe(0);
    expect(keyServiceCalls, name).toBeLessThanOrEqual(2);
  }
}

async function judge(machines: readonly ReplicatedMachine[]): Promise<string> {
  let [stored, needed, locked, restored] = [0, 0, 0, 0];
  for (const machine of machines) {
    const swept = await machine.sweep();
    stored += machine.storedBytes - swept.lockedBytes;
    locked += swept.lockedBytes;
    needed += await machine.neededBytes();
    const checked = await machine.wrongPoints('all');
    expect(checked.wrong, machine.name).toEqual([]);
    restored += checked.restored;
    expect(machine.runsWithoutKeyService, machine.name).toBe(6);
    expect(machine.brokenRuns, machine.name).toBeGreaterThan(2);
  }
  expect(stored / needed).toBeLessThanOrEqual(storedPerNeededMax);
  const sum = (of: (machine: ReplicatedMachine) => number): number =>
    machines.reduce((total, each) => total + of(each), 0);
  const syncs = sum(({ costs }) => costs.length);
  const requests = sum(({ costs }) => costs.reduce((total, { puts, reads }) => total + puts + reads, 0));
  return [
    `${machines.length} machines, ${syncs} points, ${restored} restored`,
    `stored ${mib(stored)}, needed ${mib(needed)}: ${(stored / needed).toFixed(2)}`,
    `locked besides: ${mib(locked)}`,
    `uploaded ${mib(sum(({ uploadedBytes }) => uploadedBytes))}`,
    `puts per sync ${(sum(({ costs }) => costs.reduce((n, { puts }) => n + puts, 0)) / syncs).toFixed(2)}, all requests ${(requests / syncs).toFixed(1)}`,
  ].join('; ');
}

function held(fleet: Fleet): { readonly bytes: number; readonly objects: number } {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return { bytes: heapUsed + external - fleet.bytesUnder(''), objects: fleet.store.names.length };
}

function mib(bytes: number): string {
  return `${(bytes / mebibyte).toFixed(1)} MiB`;
}
