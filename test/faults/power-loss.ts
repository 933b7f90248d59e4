import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { recordOutput } from '../canary.ts';
import { CliWorld } from './cli-world.ts';
import { digestOf, digestOfRemains, type Loss, type LossyFolder, losses, remains, writeRemains } from './lossy-disk.ts';
import { durableCopy, Replay } from './replay-trace.ts';
import type { SourcePatch } from './source-patch.ts';
import { bytesOf, parseTrace, type Syscall } from './syscalls.ts';

/** Records every file call of a history of runs, and looks at what a power loss after each of them would leave. */

const root = join(import.meta.dirname, '../..');
const traced =
  'openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,close,link,linkat,rename,renameat,renameat2,unlink,unlinkat,ftruncate,truncate,fallocate,mkdir,mkdirat,rmdir,symlink,symlinkat,copy_file_range,sendfile,fcntl,dup3,dup2,dup,io_uring_enter,mmap';
const acknowledged = 'ACKNOWLEDGED ';

/** Says on standard error when a put has resolved: from then on it has to be durable. */
const sayResolvedPuts: SourcePatch = {
  file: 'storage-targets/filesystem.ts',
  from: 'putIfAbsent: (name, bytes, putOptions, signal) => putIfAbsent(store, name, bytes, putOptions, signal),',
  to: `putIfAbsent: async (name, bytes, putOptions, signal) => {
    await putIfAbsent(store, name, bytes, putOptions, signal);
    process.getBuiltinModule('node:fs').writeSync(2, '${acknowledged}' + name + '\\n');
  },`,
};

export function whyNoStrace(): string | null {
  const probe = spawnSync('strace', ['-f', '-o', '/dev/null', 'true']);
  return probe.status === 0 ? null : 'needs strace';
}

/** One process of the history. */
interface RecordedRun {
  readonly verb: string;
  readonly calls: readonly Syscall[];
  /** The image that it read. */
  readonly image: Uint8Array;
  /** The point that it published, with the digest of its content. */
  readonly point: readonly [number, string] | null;
}

export interface History {
  readonly world: CliWorld;
  readonly start: LossyFolder;
  readonly runs: readonly RecordedRun[];
}

const smallImageBytes = 5 * 65_536 + 512;

/** init, seed, and two syncs of a small image. */
export async function recordHistory(world: CliWorld, patches: readonly SourcePatch[] = []): Promise<History> {
  world.writeConfig('state');
  world.makeImage(smallImageBytes);
  const start = durableCopy(world.folder);
  const runs: RecordedRun[] = [await recordRun(world, 'init', ['--kit', world.path('kit')], patches)];
  for (const verb of ['seed', 'sync', 'sync']) {
    runs.push(await recordRun(world, verb, ['m'], patches));
    world.changeImage(`${runs.length}`);
  }
  return { world, start, runs };
}

async function recordRun(
  world: CliWorld,
  verb: string,
  args: readonly string[],
  patches: readonly SourcePatch[],
): Promise<RecordedRun> {
  const trace = world.path('trace');
  const strace = ['-f', '-qq', '-xx', '-s', String(64 * 2 ** 20), '-e', `trace=${traced}`, '-o', trace];
  const hook = ['--import', join(import.meta.dirname, 'patch-sources.ts')];
  const node = ['--disable-warning=ExperimentalWarning', ...hook, join(root, 'agent/main.ts')];
  const command = [process.execPath, ...node, '--config', world.path('state.yaml'), '--json', verb, ...args];
  const env = {
    PATH: process.env.PATH ?? '',
    UV_USE_IO_URING: '0',
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
    FAILKIT_PATCHES: JSON.stringify([sayResolvedPuts, ...patches]),
  };
  const image = readFileSync(world.path('disk.img'));
  const child = spawn('strace', [...strace, ...command], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      recordOutput(chunk);
    });
  }
  const [exitCode] = await once(child, 'close');
  if (exitCode !== 0) throw new Error(`failkit ${verb} under strace ended with ${exitCode}: ${text}`);
  const calls = parseTrace(readFileSync(trace, 'latin1'));
  const point = /"point": (\d+)/.exec(text)?.[1];
  return { verb, calls, image, point: point === undefined ? null : [Number(point), world.imageSha256] };
}

/** Every path below the history's folder that a run has opened. */
export function filesOf({ runs }: History): readonly string[] {
  const opened = runs.flatMap(({ calls }) => calls.filter(({ name }) => name === 'openat'));
  return opened.map(({ args }) => bytesOf(args[1] ?? '').toString());
}

/** What a power loss at some moment finds. */
export interface Moment {
  readonly disk: LossyFolder;
  readonly run: RecordedRun;
  /** Index of the run in the history. */
  readonly runs: number;
  /** Names of objects whose puts have resolved. */
  readonly resolved: readonly string[];
  /** Points whose entries' puts have resolved. */
  readonly points: ReadonlyMap<number, string>;
  /** The file call before it, for messages. */
  readonly after: string;
}

/** Each moment at which a call has just ended. The disk is the same object each time. */
function* moments(history: History): Generator<Moment> {
  const resolved: string[] = [];
  const points = new Map<number, string>();
  const all = new Map(history.runs.flatMap(({ point }) => (point === null ? [] : [point])));
  for (const [runs, run] of history.runs.entries()) {
    const replay = new Replay(history.world.folder, history.start);
    for (const { call, isEnd } of eventsOf(run.calls)) {
      if (!isEnd) {
        replay.begin(call);
        continue;
      }
      replay.end(call);
      for (const name of resolvedBy(call)) {
        resolved.push(name);
        const seq = Number.MAX_SAFE_INTEGER - Number(/\/chain\/(\d+)$/.exec(name)?.[1] ?? Number.NaN);
        const digest = all.get(seq);
        if (digest !== undefined) points.set(seq, digest);
      }
      yield { disk: history.start, run, runs, resolved, points, after: `${run.verb}: ${describe(call)}` };
    }
  }
}

function eventsOf(calls: readonly Syscall[]): readonly { readonly call: Syscall; readonly isEnd: boolean }[] {
  const events = calls.flatMap((call) => [
    { call, isEnd: false, at: call.startedAt },
    { call, isEnd: true, at: call.endedAt + 0.5 },
  ]);
  return events.sort((a, b) => a.at - b.at);
}

function resolvedBy({ name, args }: Syscall): readonly string[] {
  if (name !== 'write' || args[0] !== '2') return [];
  const lines = bytesOf(args[1] ?? '')
    .toString()
    .split('\n');
  return lines.filter((line) => line.startsWith(acknowledged)).map((line) => line.slice(acknowledged.length));
}

function describe({ name, args }: Syscall): string {
  const shown = args.map((arg) => (arg.startsWith('"') && arg.length < 1000 ? bytesOf(arg).toString('latin1') : arg));
  return `${name}(${shown.join(', ').slice(0, 300)})`;
}

/** Objects are immutable, so that the finished history knows what each was put with. */
const putDigests = new Map<string, string>();

function digestOfObject(path: string): string {
  const digest = putDigests.get(path) ?? digestOf(readFileSync(path));
  putDigests.set(path, digest);
  return digest;
}

/** Objects whose puts had resolved and which are not there, or not with the bytes that were put. */
function lostObjects({ disk, resolved }: Moment, loss: Loss, world: CliWorld): readonly string[] {
  const left = new Map(remains(disk, loss));
  return resolved.filter((name) => {
    const bytes = left.get(`bucket/${name}`);
    return !bytes || digestOf(bytes) !== digestOfObject(world.path('bucket', name));
  });
}

export interface PowerLossCount {
  moments: number;
  /** Different remains that were looked at with a run of the agent. */
  examined: number;
}

/** Looks at all that power losses leave; at every `stride`-th of the different remains, with real runs. */
export async function examine(
  history: History,
  strideOf: (moment: Moment, loss: Loss) => number,
  check: (world: CliWorld, moment: Moment) => Promise<void>,
): Promise<PowerLossCount> {
  const count: PowerLossCount = { moments: 0, examined: 0 };
  const seen = new Set<string>();
  for (const moment of moments(history)) {
    count.moments++;
    for (const loss of losses) {
      const lost = lostObjects(moment, loss, history.world);
      if (lost.length > 0) throw new Error(`power loss (${loss}) after ${moment.after}: lost ${lost.join(', ')}`);
      const digest = `${moment.runs} ${moment.points.size} ${digestOfRemains(moment.disk, loss)}`;
      if (seen.has(digest)) continue;
      seen.add(digest);
      if (seen.size % strideOf(moment, loss) !== 0) continue;
      count.examined++;
      await examineRemains(moment, loss, check);
    }
  }
  return count;
}

async function examineRemains(
  moment: Moment,
  loss: Loss,
  check: (world: CliWorld, moment: Moment) => Promise<void>,
): Promise<void> {
  using world = new CliWorld();
  writeRemains(moment.disk, loss, world.folder);
  writeFileSync(world.path('disk.img'), moment.run.image);
  await check(world, moment).catch((cause: unknown) => {
    const left = [...remains(moment.disk, loss)].map(([path, bytes]) => `${path} ${bytes?.length ?? ''}`).join('\n  ');
    throw new Error(
      `power loss (${loss}) after ${moment.after}: ${cause instanceof Error ? cause.message : cause}\n  ${left}`,
      { cause },
    );
  });
}
