import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { openCanaryFolder, removeCanaryFolder } from '../test/canary.ts';
import { minioNeeds, type S3Peer, startMinio } from '../test/peers/s3.ts';
import type { Place } from './contestants/contestant.ts';
import { installAgent } from './install-agent.ts';
import { makeImage } from './make-image.ts';
import { measure } from './measure.ts';

/** What all measurements of one call share: the image, and a folder that is gone afterwards. */
export interface Arena extends AsyncDisposable {
  readonly folder: string;
  readonly image: string;
  /** Of the agent. */
  readonly launcher: string;
  /** Of the machine, when nothing of ours ran yet. */
  readonly loadAtStart: number;
  say(line: string): void;
}

export interface ArenaOptions {
  /** Folder whose files fill the image. */
  readonly source: string;
  /** One that is there already; null: make one. */
  readonly image: string | null;
}

export async function openArena({ source, image }: ArenaOptions): Promise<Arena> {
  const loadAtStart = loadavg()[0] ?? 0;
  const needs = await minioNeeds();
  if (needs !== null) throw new Error(`the benchmark ${needs}`);
  // The server takes its password from there.
  const secrets = openCanaryFolder();
  const folder = mkdtempSync(join(tmpdir(), 'failkit-bench-'));
  const say = (line: string): void => void process.stderr.write(`${line}\n`);
  const dispose = async (): Promise<void> => {
    rmSync(folder, { recursive: true, force: true });
    removeCanaryFolder(secrets);
  };
  try {
    return {
      ...{ folder, loadAtStart, say },
      launcher: await installAgent(join(folder, 'agent')),
      image: image === null ? await makeIn(folder, source, say) : resolve(image),
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function makeIn(folder: string, source: string, say: Arena['say']): Promise<string> {
  const image = join(folder, 'image/disk.img');
  mkdirSync(join(folder, 'image'));
  say(`making an image of ${source}…`);
  await makeImage(image, source);
  return image;
}

/** Whose disk is measured otherwise: images are restored, and servers keep what they store, in memory. */
function memoryFolder(): string {
  return mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'failkit-bench-'));
}

/** A server of its own, an empty bucket and empty folders: nothing is left of what ran before. */
export interface Stand extends AsyncDisposable {
  readonly server: S3Peer;
  readonly place: Place;
  /** An empty folder in memory. */
  newFolder(): string;
}

export async function openStand(arena: Arena): Promise<Stand> {
  await using opened = new AsyncDisposableStack();
  const inMemory = memoryFolder();
  opened.defer(() => rmSync(inMemory, { recursive: true, force: true }));
  const folder = mkdtempSync(join(arena.folder, 'run-'));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const server = opened.use(await startMinio());
  const place: Place = {
    endpoint: new URL(server.endpoint).host,
    region: server.region,
    bucket: await server.createBucket(),
    accessKeyId: server.accessKeyId,
    secretAccessKey: server.secretAccessKey.reveal(),
    folder,
    memoryFolder: mkdtempSync(join(inMemory, 'store-')),
    image: arena.image,
    launcher: arena.launcher,
  };
  const held = opened.move();
  return {
    ...{ server, place },
    newFolder: () => mkdtempSync(join(inMemory, 'out-')),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Into the page cache, before every step alike. */
export async function readThrough(path: string): Promise<void> {
  await measure({ command: 'dd', args: [`if=${path}`, 'of=/dev/null', 'bs=4M', 'status=none'] });
}

/** Throws where they differ. */
export function requireSame(image: string, restored: string): void {
  execFileSync('cmp', [image, restored]);
}

export function describeArena({ image, loadAtStart }: Arena): readonly string[] {
  const { size, blocks } = statSync(image);
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(2);
  return [
    `machine: ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, load average at the start ${loadAtStart.toFixed(2)}; Node ${process.version}`,
    `image: ${gib(size)} GiB, ${gib(blocks * 512)} GiB of it in use`,
  ];
}
