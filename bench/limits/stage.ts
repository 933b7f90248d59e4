import type { Config, MachineConfig } from '../../agent/config/config-schema.ts';
import { type Observed, watchMachine } from '../observe.ts';

/** One part of a seed or a restore, alone, in a process of its own. */

export const stageNames = ['read', 'make', 'put', 'get', 'open', 'write'] as const;
export type StageName = (typeof stageNames)[number];

export interface StageTimes extends Observed {
  /** Of the disk, zeros left out; of what is stored, where no disk is part of the stage. */
  readonly bytes: number;
}

export interface StageContext {
  readonly config: Config;
  readonly machine: MachineConfig;
  /** Null: the stage needs no server. */
  readonly serverPid: number | null;
  /** An empty folder in memory. */
  readonly folder: string;
  /** Of the segments that a seed stored. */
  readonly segmentSizes: readonly number[];
  readonly signal: AbortSignal;
}

export interface StageWork {
  readonly bytes: number;
  /** CPU time of the measurement itself that was spent while the clock ran. */
  readonly ownCpuMs?: number;
}

/** What comes before the work (filling memory, starting) is not counted. */
export async function timeStage(serverPid: number | null, work: () => Promise<StageWork>): Promise<StageTimes> {
  const settle = watchMachine(serverPid);
  const before = process.cpuUsage();
  const started = performance.now();
  const { bytes, ownCpuMs = 0 } = await work();
  const wallMs = performance.now() - started;
  const { user, system } = process.cpuUsage(before);
  const cpuMs = (user + system) / 1000;
  return { wallMs, cpuMs: cpuMs - ownCpuMs, ...settle(cpuMs), bytes };
}
