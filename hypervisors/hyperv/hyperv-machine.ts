import type { OpenFile } from '../vhdx/random-access-file.ts';
import type { StartWorker } from './worker-client.ts';

/** A Hyper-V host: how its worker is started, and how files of it are read. */
export interface HypervHost {
  readonly name: string;
  /** Also what these hold open, such as a connection. */
  open(signal: AbortSignal): Promise<OpenHypervHost>;
}

export interface OpenHypervHost extends AsyncDisposable {
  readonly startWorker: StartWorker;
  readonly openFile: OpenFile;
  /** What it holds open is gone: it has to be opened anew. */
  isLost(): boolean;
}

/** A virtual machine of Hyper-V, and what is to be taken of it. */
export interface HypervMachine {
  readonly name: string;
  readonly host: HypervHost;
  /** As Hyper-V has it, in lower case; names may occur twice. */
  readonly vm: string;
  /** Labels of disks that are left out: points are then partial. */
  readonly excludedDisks: readonly string[];
  /** No checkpoint is taken while a volume of its disks has less left. */
  readonly volumeFreeBytesMin: number;
  /** `leave`: what Hyper-V tracks is not asked for, and each run reads everything. */
  readonly tracking: 'enable' | 'leave';
  /** Where it is written down what belongs to us on the host. In a cluster one that every node reaches. */
  readonly journalFolder: string;
  /** Marks the checkpoints of this agent for this machine and this repository, so that nobody else's is touched: 8 hex digits. */
  readonly tag: string;
}

/** How often is looked, and how long waited. */
export interface HypervPace {
  readonly pollMsMax: number;
  /** For whoever is at the machine. */
  readonly busyMs: number;
  readonly checkpointMs: number;
  /** Of what was written meanwhile, into the disk. Where much was, it takes hours. */
  readonly mergeMs: number;
}

const minuteMs = 60_000;
export const usualPace: HypervPace = {
  pollMsMax: 2_000,
  busyMs: 10 * minuteMs,
  checkpointMs: 15 * minuteMs,
  mergeMs: 6 * 60 * minuteMs,
};

const pollMsFirst = 50;

/** Most of what Hyper-V does takes a moment, and some of it hours. */
export function pollPauseMs({ pollMsMax }: HypervPace, attempt: number): number {
  return Math.min(pollMsMax, pollMsFirst * 2 ** Math.min(attempt, 20));
}
