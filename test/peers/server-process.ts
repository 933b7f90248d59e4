/** What every peer needs: installed where install.sh puts it, started on a free loopback port, stopped for sure. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const installTimeoutMs = 1_800_000;
const startTimeoutMs = 60_000;
const logTailChars = 2_000;
const freePortAttemptsMax = 100;

/** Installs a peer if it is missing. Returns what is needed, as the text of a skipped test, or null when it is there. */
export async function peerNeeds(name: string): Promise<string | null> {
  const installer = join(import.meta.dirname, 'install.sh');
  const { stdout } = await promisify(execFile)(installer, [name], { timeout: installTimeoutMs });
  return isPeerPresent(name) ? null : `needs ${name} (${stdout.trim()})`;
}

/** Whether an earlier call installed it. */
export function isPeerPresent(name: string): boolean {
  return existsSync(join(peerFolder(name), '.installed'));
}

/** The folder that install.sh fills: its name holds the hash of the recipe and of its parts. */
export function peerFolder(name: string): string {
  const cache = process.env.FAILKIT_PEERS || join(homedir(), '.cache/failkit-peers');
  const parts = join(import.meta.dirname, 'recipes', name);
  const hash = createHash('sha256').update(readFileSync(`${parts}.sh`));
  if (existsSync(parts)) for (const part of readdirSync(parts).sort()) hash.update(readFileSync(join(parts, part)));
  return join(cache, `${name}-${hash.digest('hex').slice(0, 12)}`);
}

export interface ServerProcess {
  /** Removed with the process. */
  readonly folder: string;
  readonly port: number;
  readonly pid: number;
  /** The end of what it printed. */
  logTail(): string;
  /** Kills it at once, as a power cut would. */
  stop(): Promise<void>;
}

export interface ServerOptions {
  readonly name: string;
  /** Only for in-memory folders: servers whose speed is measured should not measure the disk. */
  readonly inMemory?: boolean;
  command(folder: string, port: number): readonly string[];
  env?(folder: string): Readonly<Record<string, string>>;
}

/** Resolves when the server accepts connections; rejects with the end of its log when it does not start. */
export async function startServer(options: ServerOptions): Promise<ServerProcess> {
  const base = options.inMemory && existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const folder = await mkdtemp(join(base, `failkit-${options.name}-`));
  const port = await freePort();
  const server = launch(options, folder, port);
  const stop = async () => {
    if (server.exitCode === null && server.signalCode === null) {
      const ended = once(server, 'exit');
      server.kill('SIGKILL');
      await ended;
    }
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await accepting(options.name, server, port, join(folder, 'log'));
  } catch (error) {
    await stop();
    throw error;
  }
  return { folder, port, pid: server.pid ?? -1, logTail: () => logTail(join(folder, 'log')), stop };
}

function launch(options: ServerOptions, folder: string, port: number): ChildProcess {
  const log = openSync(join(folder, 'log'), 'w');
  const [command = '', ...args] = options.command(folder, port);
  const env = { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, ...options.env?.(folder) };
  const server = spawn(command, args, { stdio: ['ignore', log, log], cwd: folder, env });
  const kill = () => server.kill('SIGKILL');
  process.once('exit', kill);
  server.once('exit', () => process.off('exit', kill));
  return server;
}

async function accepting(name: string, server: ChildProcess, port: number, log: string): Promise<void> {
  const until = performance.now() + startTimeoutMs;
  while (!(await accepts(port))) {
    if (server.exitCode !== null || performance.now() > until) {
      throw new Error(`${name} did not start:\n${logTail(log)}`);
    }
    await sleep(50);
  }
}

function logTail(log: string): string {
  return readFileSync(log, 'utf8').slice(-logTailChars);
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  const accepted = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return accepted;
}

/**
 * Below what Linux gives to clients and to those who ask for any port: a server that takes seconds until it listens
 * finds its port still free.
 */
const firstPort = 10_000;
const endPort = 32_000;

export async function freePort(): Promise<number> {
  for (let attempt = 1; attempt <= freePortAttemptsMax; attempt++) {
    const port = randomInt(firstPort, endPort);
    const probe = createServer().listen(port, '127.0.0.1');
    const free = await once(probe, 'listening').then(
      () => true,
      () => false,
    );
    if (!free) continue;
    probe.close();
    await once(probe, 'close');
    return port;
  }
  throw new Error('no free port');
}
