import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig } from '../../agent/config/load-config.ts';
import { openTarget } from '../../agent/wire.ts';
import { type Arena, openStand, readThrough, requireSame, type Stand } from '../arena.ts';
import type { Compression } from '../contestants/contestant.ts';
import { configFile, failkit, secretsOf } from '../contestants/failkit.ts';
import { type Measured, measure } from '../measure.ts';
import { describeObserved, type Observed, observe } from '../observe.ts';
import { segmentsOf } from './restore-stages.ts';
import type { StageOrder } from './run-stage.ts';
import type { StageName, StageTimes } from './stage.ts';

/** A seed and a restore from end to end, and each of their stages alone: how near the whole comes to its slowest part. */

export type Whole = 'seed' | 'restore';
export const stagesOf: Readonly<Record<Whole, readonly StageName[]>> = {
  seed: ['read', 'make', 'put'],
  restore: ['get', 'open', 'write'],
};

export interface LimitRow extends Observed {
  readonly round: number;
  readonly compression: Compression;
  readonly whole: Whole;
  /** `whole`: from end to end, the start of the process included. */
  readonly part: StageName | 'whole';
}

export interface LimitRound {
  readonly rows: readonly LimitRow[];
  /** Of the disk, zeros left out: what all parts of the round worked on. */
  readonly dataBytes: number;
}

export async function limitRound(arena: Arena, compression: Compression, round: number): Promise<LimitRound> {
  await using stand = await openStand(arena);
  const run = await failkit.open(stand.place, compression);
  const rows: LimitRow[] = [];
  const note = (whole: Whole, part: LimitRow['part'], observed: Observed): void => {
    const { wallMs, cpuMs, serverCpuMs, othersShare } = observed;
    rows.push({ round, compression, whole, part, wallMs, cpuMs, serverCpuMs, othersShare });
    arena.say(`${round} ${compression} ${whole}, ${part}: ${describeObserved(observed)}`);
  };
  const stage = (name: StageName) => runStage(arena, name, stand, []);

  const read = await stage('read');
  note('seed', 'read', read);
  note('seed', 'make', await stage('make'));
  note('seed', 'whole', await wholeRun(arena, stand, () => run.seed()));
  note('seed', 'put', await putElsewhere(arena, stand));
  note('restore', 'get', await stage('get'));
  note('restore', 'open', await stage('open'));
  note('restore', 'whole', await wholeRun(arena, stand, () => restoreAndCompare(run, stand)));
  note('restore', 'write', await stage('write'));
  return { rows, dataBytes: read.bytes };
}

/** To another server of the same kind, as empty as the seed's was. */
async function putElsewhere(arena: Arena, stand: Stand): Promise<StageTimes> {
  const sizes = await segmentSizesOf(stand);
  await using other = await openStand(arena);
  await failkit.open(other.place, 'off');
  return await runStage(arena, 'put', other, sizes);
}

async function segmentSizesOf({ place }: Stand): Promise<readonly number[]> {
  const { target } = await openTarget(loadConfig(join(place.folder, configFile), secretsOf(place)));
  await using _ = target;
  const sizes: number[] = [];
  for await (const { bytes } of segmentsOf(target, new AbortController().signal)) sizes.push(bytes);
  return sizes;
}

async function wholeRun(arena: Arena, stand: Stand, work: () => Promise<Measured>): Promise<Observed> {
  await readThrough(arena.image);
  return await observe(stand.server.pid, work);
}

async function restoreAndCompare(run: Awaited<ReturnType<typeof failkit.open>>, stand: Stand): Promise<Measured> {
  const folder = stand.newFolder();
  const { measured, image } = await run.restore(folder);
  requireSame(stand.place.image, image);
  rmSync(folder, { recursive: true });
  return measured;
}

/** Of the launcher, `bin/failkit`: what the whole runs under, its parts run under, too. */
const nodeOptions = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=1'];
const allocator = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '2097152',
  MALLOC_TRIM_THRESHOLD_: '16777216',
};

async function runStage(
  arena: Arena,
  name: StageName,
  stand: Stand,
  segmentSizes: readonly number[],
): Promise<StageTimes> {
  await readThrough(arena.image);
  const { place, server } = stand;
  const order: StageOrder = {
    configFile: join(place.folder, configFile),
    serverPid: server.pid,
    folder: stand.newFolder(),
    segmentSizes,
  };
  const script = join(import.meta.dirname, 'run-stage.ts');
  try {
    const { stdout } = await measure({
      command: process.execPath,
      args: [...nodeOptions, script, name, JSON.stringify(order)],
      env: { ...secretsOf(place), ...allocator },
      cwd: place.folder,
    });
    const times: StageTimes = JSON.parse(stdout);
    return times;
  } finally {
    // It may hold the whole disk, in memory.
    rmSync(order.folder, { recursive: true, force: true });
  }
}
