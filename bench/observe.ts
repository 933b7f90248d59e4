import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { machineCpuMs, processCpuMs } from './cpu-times.ts';
import type { Measured } from './measure.ts';

/** What a step took of the whole machine. */
export interface Observed {
  readonly wallMs: number;
  /** Of the program and its children. */
  readonly cpuMs: number;
  /** Of the S3 server, which shares the cores, and of whatever else works for the program. */
  readonly serverCpuMs: number;
  /** Of all cores' time meanwhile, what neither of them took: who else was busy, from 0 to 1. */
  readonly othersShare: number;
}

/** For what a server does after its last answer. */
const settleMs = 200;

/** `serverPids`: whose work is part of it. Null: nobody's. */
export async function observe(
  serverPids: number | readonly number[] | null,
  work: () => Promise<Measured>,
): Promise<Observed> {
  const settle = watchMachine(serverPids);
  const { wallMs, cpuMs } = await work();
  await sleep(settleMs);
  return { wallMs, cpuMs, ...settle(cpuMs) };
}

/**
 * From now on until the function that is returned is called, with the CPU time of what is measured itself. `serverPids` null: it talks
 * to no server.
 */
export function watchMachine(
  serverPids: number | readonly number[] | null,
): (ownCpuMs: number) => Pick<Observed, 'serverCpuMs' | 'othersShare'> {
  const pids = [serverPids ?? []].flat();
  const serverCpu = () => pids.reduce((sum, pid) => sum + processCpuMs(pid), 0);
  const before = { server: serverCpu(), machine: machineCpuMs(), atMs: performance.now() };
  return (ownCpuMs) => {
    const serverCpuMs = serverCpu() - before.server;
    const othersMs = machineCpuMs() - before.machine - ownCpuMs - serverCpuMs;
    const allMs = (performance.now() - before.atMs) * cpus().length;
    return { serverCpuMs, othersShare: Math.min(1, Math.max(0, othersMs / allMs)) };
  };
}

export function describeObserved({ wallMs, cpuMs, serverCpuMs, othersShare }: Observed): string {
  const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
  return `${seconds(wallMs)}, CPU ${seconds(cpuMs)}, server ${seconds(serverCpuMs)}, others ${percentOf(othersShare)}`;
}

function percentOf(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}

/** For the reader of a table: on a busy machine wall times say little. */
export function describeOthers(steps: readonly Observed[]): string {
  const most = Math.max(...steps.map(({ othersShare }) => othersShare));
  const sum = steps.reduce((total, { othersShare }) => total + othersShare, 0);
  return `other programs took ${percentOf(sum / steps.length)} of the cores' time in the mean, ${percentOf(most)} in the worst step`;
}
