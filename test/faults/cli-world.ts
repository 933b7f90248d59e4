import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCli } from '../../agent/cli.ts';
import { neverHangUp } from '../../agent/interrupt.ts';
import { recordOutput } from '../canary.ts';
import { noise } from './fault-world.ts';
import type { Injection } from './injection.ts';

/** A folder with a bucket directory, an image, a configuration and a state folder, and real failkit processes on it. */

const root = join(import.meta.dirname, '../..');
const memoryFolder = '/dev/shm';
const imageBytes = 9 * 2 ** 20 + 4096;
/** As in the configuration below. */
export const inFlight = 2;
const blockBytes = 65_536;

/** What a machine has besides its disk `root`. */
export interface MoreOfMachine {
  readonly disks?: readonly { readonly label: string; readonly path: string }[];
  readonly attachments?: readonly string[];
}

export interface CliOutcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process that was started and may be looked at before it ends. */
export interface CliProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<CliOutcome & { readonly signal: NodeJS.Signals | null }>;
}

export class CliWorld implements Disposable {
  readonly folder: string;
  readonly #children = new Set<ChildProcess>();

  constructor(from?: CliWorld, parent = existsSync(memoryFolder) ? memoryFolder : tmpdir()) {
    this.folder = mkdtempSync(join(parent, 'failkit-cli-'));
    if (from !== undefined) cpSync(from.folder, this.folder, { recursive: true });
  }

  /** With an image, and no repository yet. */
  static empty(parent?: string): CliWorld {
    const world = new CliWorld(undefined, parent);
    world.writeConfig('state');
    world.makeImage(imageBytes);
    return world;
  }

  /** With a repository, and an image that nothing was sent of. */
  static async create(parent?: string): Promise<CliWorld> {
    const world = CliWorld.empty(parent);
    await world.succeed(['init', '--kit', world.path('kit')]);
    return world;
  }

  path(...parts: readonly string[]): string {
    return join(this.folder, ...parts);
  }

  /** A configuration whose agent keeps its state in that folder. */
  writeConfig(state: string, bucket = 'bucket', rootFingerprint: string | null = null, more: MoreOfMachine = {}): void {
    const disks = [{ label: 'root', path: 'disk.img' }, ...(more.disks ?? [])];
    const source = { type: 'image', disks, attachments: more.attachments ?? [] };
    const config = {
      rootFingerprint,
      repository: { target: 'filesystem', directory: bucket },
      keys: { provider: 'local-key', file: 'local.key' },
      state,
      segmentMiB: 4,
      limits: { inFlight, workers: 1 },
      machines: [{ name: 'm', source }],
    };
    writeFileSync(this.path(`${state}.yaml`), JSON.stringify(config));
  }

  makeImage(bytes: number): void {
    writeFileSync(this.path('disk.img'), noise('image', bytes));
  }

  /** Different blocks of the image. */
  changeImage(seed: string): void {
    const bytes = readFileSync(this.path('disk.img'));
    for (let block = 3; block < bytes.length / blockBytes - 1; block += 2) {
      noise(`${seed} ${block}`, 8192).forEach((byte, i) => {
        bytes[block * blockBytes + i] = byte;
      });
    }
    writeFileSync(this.path('disk.img'), bytes);
  }

  /** How often a process met the calls that an injection with `countTo` counts. */
  get countedCalls(): number {
    return Number(readFileSync(this.path('count'), 'utf8'));
  }

  /** As the recovery kit says it. */
  get rootFingerprint(): string {
    return /fk-root-[a-z0-9-]+/.exec(readFileSync(this.path('kit/RECOVERY-KIT.txt'), 'utf8'))?.[0] ?? 'none';
  }

  get imageSha256(): string {
    return sha256OfFile(this.path('disk.img'));
  }

  /** A command in this process. */
  async run(args: readonly string[], state = 'state', signal = new AbortController().signal): Promise<CliOutcome> {
    const texts = { stdout: '', stderr: '' };
    const stream = (name: 'stdout' | 'stderr') => ({
      write: (text: string): void => {
        texts[name] += text;
      },
    });
    const host = { stdout: stream('stdout'), stderr: stream('stderr'), environment: {}, signal, onHangUp: neverHangUp };
    const exitCode = await runCli(['--config', this.path(`${state}.yaml`), '--json', ...args], host);
    recordOutput(texts.stdout + texts.stderr);
    return { exitCode, ...texts };
  }

  async succeed(args: readonly string[], state?: string): Promise<CliOutcome> {
    const outcome = await this.run(args, state);
    if (outcome.exitCode === 0) return outcome;
    throw new Error(`failkit ${args.join(' ')} ended with ${outcome.exitCode}: ${outcome.stdout}${outcome.stderr}`);
  }

  /** A command in a process of its own, in which something goes wrong. */
  start(args: readonly string[], injection: Injection | null, state = 'state'): CliProcess {
    const inject = injection === null ? [] : ['--import', join(import.meta.dirname, 'inject.ts')];
    const options = ['--disable-warning=ExperimentalWarning', ...inject, join(root, 'dist/agent/main.js')];
    const env = {
      PATH: process.env.PATH ?? '',
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      ...(injection && { FAILKIT_INJECT: JSON.stringify(injection) }),
    };
    const command = [...options, '--config', this.path(`${state}.yaml`), '--json', ...args];
    const child = spawn(process.execPath, command, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#children.add(child);
    const ended = outcomeOf(child).finally(() => this.#children.delete(child));
    return { child, ended };
  }

  /** The disk at that point. */
  async restoredSha256(point: number, state?: string): Promise<string> {
    const to = this.path(`restored-${point}`);
    await this.succeed(['restore', 'm', '--point', String(point), '--disk', 'root', '--to', to, '--force'], state);
    const digest = sha256OfFile(to);
    rmSync(to);
    return digest;
  }

  /** Throws unless every point restores to what it was. */
  async requirePoints(points: ReadonlyMap<number, string>, state?: string): Promise<void> {
    for (const [point, digest] of points) {
      if ((await this.restoredSha256(point, state)) !== digest)
        throw new Error(`point ${point} does not restore as it was`);
    }
  }

  /** The next run, whatever the last one came to: its point. */
  async publishNext(state?: string, options: readonly string[] = []): Promise<PublishedDocument> {
    const seeded = await this.run(['seed', 'm', ...options], state);
    const outcome = seeded.stdout.includes('WRONG_VERB')
      ? await this.succeed(['sync', 'm', ...options], state)
      : seeded;
    if (outcome.exitCode !== 0) throw new Error(`the next run failed: ${outcome.stdout}${outcome.stderr}`);
    const { machines }: { machines: PublishedDocument[] } = JSON.parse(outcome.stdout);
    const [machine] = machines;
    if (machine === undefined) throw new Error('nothing was published');
    return machine;
  }

  /** Paths of the segments in the bucket. */
  segments(bucket = 'bucket'): readonly string[] {
    return this.objects(bucket).filter((name) => name.includes('/segments/'));
  }

  segmentBytes(bucket = 'bucket'): number {
    return this.segments(bucket).reduce((sum, path) => sum + statSync(path).size, 0);
  }

  objects(bucket = 'bucket'): readonly string[] {
    const found = readdirSync(this.path(bucket), { recursive: true, withFileTypes: true });
    return found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  }

  /** Files that a put had not finished. */
  unfinished(bucket = 'bucket'): readonly string[] {
    const folder = this.path(bucket, '.incoming~');
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  [Symbol.dispose](): void {
    // A failed test may leave one that has stopped itself, and would wait for ever.
    for (const child of this.#children) child.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export interface PublishedDocument {
  readonly point: number;
  readonly adopted: boolean;
  readonly uploadedBytes: number;
  readonly changedBytes: number;
}

export function sha256OfFile(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

async function outcomeOf(child: ChildProcess): Promise<CliOutcome & { readonly signal: NodeJS.Signals | null }> {
  const texts = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.on('data', (chunk: Buffer) => {
      texts[name] += chunk.toString();
      recordOutput(chunk);
    });
  }
  const [exitCode, signal]: [number | null, NodeJS.Signals | null] = (await once(child, 'close')) as [
    number | null,
    NodeJS.Signals | null,
  ];
  return { exitCode: exitCode ?? -1, signal, ...texts };
}
