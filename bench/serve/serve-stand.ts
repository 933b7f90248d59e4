import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { access, open, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdDisk } from '../../hypervisors/nbd/nbd-disk.ts';
import { parseNbdUri } from '../../hypervisors/nbd/nbd-uri.ts';
import { startFailkit } from '../../test/end-to-end/failkit-process.ts';
import { type ByteCounter, startByteCounter } from '../../test/peers/byte-counter.ts';
import { startQemuNbd } from '../../test/peers/nbd.ts';
import { startMinio } from '../../test/peers/s3.ts';
import type { Mount, Place } from '../contestants/contestant.ts';
import { secretsOf } from '../contestants/failkit.ts';

/** A store that counts what it sends, and the image in it as something that can be read anywhere. */

const readyTimeoutMs = 60_000;
const pollMs = 20;
const never = new AbortController().signal;

export interface ServeStand extends AsyncDisposable {
  readonly place: Place;
  /** Between the store and whoever reads. */
  readonly wire: ByteCounter;
}

/** `parent`: an empty folder of its own is made there. */
export async function openServeStand(parent: string, image: string, launcher: string): Promise<ServeStand> {
  await using opened = new AsyncDisposableStack();
  const folder = mkdtempSync(join(parent, 'run-'));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const server = opened.use(await startMinio());
  const wire = opened.use(await startByteCounter(Number(new URL(server.endpoint).port)));
  const place: Place = {
    endpoint: new URL(wire.endpoint).host,
    region: server.region,
    bucket: await server.createBucket(),
    accessKeyId: server.accessKeyId,
    secretAccessKey: server.secretAccessKey.reveal(),
    ...{ folder, memoryFolder: folder, image, launcher },
  };
  const held = opened.move();
  return { place, wire, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

export interface Readable extends AsyncDisposable {
  read(offset: number, into: Uint8Array): Promise<void>;
}

export async function openFile(path: string): Promise<Readable> {
  const file = await open(path);
  return {
    read: async (offset, into) => {
      const { bytesRead } = await file.read(into, 0, into.length, offset);
      if (bytesRead !== into.length) throw new Error(`${path}: ${bytesRead} of ${into.length} bytes at ${offset}`);
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

/** A local file, over NBD. */
export async function openQemuNbd(path: string): Promise<Readable> {
  const server = await startQemuNbd(['--read-only', '--format=raw', path]);
  return await openExport(server.uri, () => server.stop());
}

export interface ServeProcess extends AsyncDisposable {
  readonly uri: string;
  readonly pid: number;
}

export async function startServing(place: Place, ...args: readonly string[]): Promise<ServeProcess> {
  const failkit = startFailkit(['serve', 'machine', '--json', ...args], {
    folder: place.folder,
    environment: secretsOf(place),
    launcher: place.launcher,
  });
  const announced: { exports: readonly { uri: string }[] } = JSON.parse(await failkit.firstLine);
  return {
    uri: announced.exports[0]?.uri ?? '',
    pid: failkit.pid,
    [Symbol.asyncDispose]: async () => {
      failkit.kill('SIGINT');
      const { exitCode, stderr } = await failkit.ended;
      if (exitCode !== 0) throw new Error(`failkit serve ended with ${exitCode}: ${stderr}`);
    },
  };
}

export async function openServed(place: Place): Promise<Readable> {
  const served = await startServing(place);
  return await openExport(served.uri, () => served[Symbol.asyncDispose]());
}

async function openExport(uri: string, end: () => PromiseLike<void>): Promise<Readable> {
  const disk = await NbdDisk.open(parseNbdUri(uri), {}, never);
  return {
    read: (offset, into) => disk.read(offset, into, never),
    [Symbol.asyncDispose]: async () => {
      await disk[Symbol.asyncDispose]();
      await end();
    },
  };
}

export async function openMounted(folder: string, mountOf: (at: string) => Mount): Promise<Readable> {
  const at = mkdtempSync(join(folder, 'mounted-'));
  const { program, image } = mountOf(at);
  const child = spawn(program.command, program.args, {
    env: { PATH: process.env.PATH, HOME: folder, ...program.env },
    stdio: 'ignore',
  });
  try {
    // Not by a call that blocks: what the mounted program fetches passes through this process.
    for (const until = performance.now() + readyTimeoutMs; !(await isThere(image)); await sleep(pollMs))
      if (child.exitCode !== null || performance.now() > until)
        throw new Error(`${program.command} mount shows nothing at ${image}`);
    const file = await openFile(image);
    return {
      read: (offset, into) => file.read(offset, into),
      [Symbol.asyncDispose]: async () => {
        await file[Symbol.asyncDispose]();
        await unmount(child, at);
      },
    };
  } catch (error) {
    await unmount(child, at);
    throw error;
  }
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function unmount(child: ChildProcess, at: string): Promise<void> {
  const ended = new Promise((resolve) => child.once('close', resolve));
  if (child.exitCode === null) {
    child.kill('SIGINT');
    await ended;
  }
  await rmdir(at);
}
