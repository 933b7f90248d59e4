/** Real NBD servers, qemu-nbd and nbdkit, each a process of its own on a unix socket or on loopback. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort, peerFolder, peerNeeds } from './server-process.ts';

const startTimeoutMs = 30_000;
const logTailChars = 2_000;

/** What is missing, or null. */
export async function nbdNeeds(): Promise<string | null> {
  const installed = () => ['qemu-nbd', 'nbdkit'].every((tool) => existsSync(join(peerFolder('nbd'), tool)));
  const needs = await peerNeeds('nbd');
  if (needs !== null || installed()) return needs;
  // The packages are gone from the system since: install them again.
  await rm(peerFolder('nbd'), { recursive: true });
  return peerNeeds('nbd');
}

export interface NbdPeer extends AsyncDisposable {
  /** Of the default export, as nbd+unix: or nbd:. */
  readonly uri: string;
  /** Kills it at once, as a power cut would. */
  stop(): Promise<void>;
  /** Lets it finish once its clients are gone: images are closed in order. */
  end(): Promise<void>;
  /** Stops its clock and starts it again: a server that hangs. */
  signal(name: 'SIGSTOP' | 'SIGCONT'): void;
}

export interface NbdPeerOptions {
  readonly tcp?: boolean;
  readonly tls?: boolean;
}

/** `args`: after the socket's own, the image last. */
export function startQemuNbd(args: readonly string[], options: NbdPeerOptions = {}): Promise<NbdPeer> {
  return start(options, (socket, port) => [
    ...['qemu-nbd', '--persistent', '--shared=8', '--cache=writeback'],
    ...(options.tcp ? ['--bind=127.0.0.1', `--port=${port}`] : [`--socket=${socket}`]),
    ...args,
  ]);
}

/** `args`: plugin and filters with their parameters. */
export function startNbdkit(args: readonly string[], options: NbdPeerOptions = {}): Promise<NbdPeer> {
  return start(options, (socket, port) => [
    ...['nbdkit', '--foreground', '--exit-with-parent'],
    ...(options.tcp ? ['--ipaddr=127.0.0.1', `--port=${port}`] : [`--unix=${socket}`]),
    ...args,
  ]);
}

/** Runs one of the tools to its end and returns what it printed. */
export async function runNbdTool(
  tool: 'qemu-img' | 'qemu-io' | 'nbdcopy' | 'nbdinfo',
  args: readonly string[],
): Promise<string> {
  const { stdout } = await promisify(execFile)(join(peerFolder('nbd'), tool), [...args]);
  return stdout;
}

async function start(
  options: NbdPeerOptions,
  command: (socket: string, port: number) => readonly string[],
): Promise<NbdPeer> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-'));
  const socket = join(folder, 's');
  const port = options.tcp ? await freePort() : 0;
  const [tool = '', ...args] = command(socket, port);
  const log = openSync(join(folder, 'log'), 'w');
  const server = spawn(join(peerFolder('nbd'), tool), args, { stdio: ['ignore', log, log] });
  const stop = async () => {
    await kill(server);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await accepting(server, options.tcp ? { host: '127.0.0.1', port } : { path: socket }, join(folder, 'log'));
  } catch (error) {
    await stop();
    throw error;
  }
  const scheme = options.tls ? 'nbds' : 'nbd';
  const uri = options.tcp ? `${scheme}://127.0.0.1:${port}/` : `${scheme}+unix:///?socket=${socket}`;
  const end = async () => {
    const ended = once(server, 'exit');
    server.kill('SIGTERM');
    await ended;
  };
  return { uri, stop, end, signal: (name) => server.kill(name), [Symbol.asyncDispose]: stop };
}

async function kill(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = once(server, 'exit');
  server.kill('SIGKILL');
  await ended;
}

async function accepting(
  server: ChildProcess,
  where: { readonly path: string } | { readonly host: string; readonly port: number },
  log: string,
): Promise<void> {
  const until = performance.now() + startTimeoutMs;
  for (;;) {
    const probe = connect(where);
    const accepted = await once(probe, 'connect').then(
      () => true,
      () => false,
    );
    probe.destroy();
    if (accepted) return;
    if (server.exitCode !== null || performance.now() > until)
      throw new Error(`${server.spawnfile} did not start:\n${readFileSync(log, 'utf8').slice(-logTailChars)}`);
    await sleep(20);
  }
}
