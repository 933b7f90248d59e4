/**
 * One stage in a process of its own, under the agent's own configuration and Node's options of its launcher:
 *
 *   run-stage.ts STAGE '{"configFile": …, "serverPid": …, "folder": …, "segmentSizes": […]}'
 *
 * Prints what it took as JSON.
 */
import { loadConfig } from '../../agent/config/load-config.ts';
import { getRanges, openRecords, writeDisk } from './restore-stages.ts';
import { makeSegments, putObjects, readSource } from './seed-stages.ts';
import type { StageContext, StageName, StageTimes } from './stage.ts';

/** What the process is told. */
export interface StageOrder {
  readonly configFile: string;
  readonly serverPid: number | null;
  readonly folder: string;
  readonly segmentSizes: readonly number[];
}

const stages: Readonly<Record<StageName, (context: StageContext) => Promise<StageTimes>>> = {
  read: readSource,
  make: makeSegments,
  put: putObjects,
  get: getRanges,
  open: openRecords,
  write: writeDisk,
};

if (import.meta.main) {
  const [name = '', text = ''] = process.argv.slice(2);
  if (!isStage(name)) throw new Error(`${name} is no stage`);
  const order: StageOrder = JSON.parse(text);
  const config = loadConfig(order.configFile, process.env);
  const [machine] = config.machines;
  if (machine === undefined) throw new Error(`${order.configFile} names no machine`);
  const { signal } = new AbortController();
  const times = await stages[name]({ ...order, config, machine, signal });
  process.stdout.write(`${JSON.stringify(times)}\n`);
}

function isStage(name: string): name is StageName {
  return Object.hasOwn(stages, name);
}
