import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LibvirtUnreachable } from './libvirt-errors.ts';
import type { SshPlace } from './libvirt-place.ts';

/** A unix socket of another host as one of this host, through `ssh -L`. */

const startTimeoutMs = 30_000;
const pollMs = 50;
const messageCharsMax = 500;

export interface ForwardedSocket extends AsyncDisposable {
  readonly path: string;
}

/** ssh must get in by itself: nobody is asked for a password. */
export async function forwardSocket(
  place: SshPlace,
  remotePath: string,
  signal: AbortSignal,
): Promise<ForwardedSocket> {
  await using opening = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'failkit-ssh-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'nbd');
  const ssh = new Ssh(place, `${path}:${remotePath}`);
  opening.use(ssh);
  const deadline = performance.now() + startTimeoutMs;
  while (!existsSync(path)) {
    if (ssh.failure !== null || performance.now() > deadline)
      throw new LibvirtUnreachable(
        `ssh to ${place.host} did not forward ${remotePath}: ${ssh.failure ?? 'no answer in time'}`,
      );
    await sleep(pollMs, undefined, { signal });
  }
  const held = opening.move();
  return { path, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

class Ssh implements AsyncDisposable {
  readonly #child: ChildProcess;
  #failure: string | null = null;
  #said = '';

  constructor({ host, user, port, command, keyFile }: SshPlace, forward: string) {
    const options = ['BatchMode=yes', 'ExitOnForwardFailure=yes', 'ServerAliveInterval=15'];
    const args = ['-N', '-T', ...options.flatMap((option) => ['-o', option]), '-L', forward];
    if (user !== null) args.push('-l', user);
    if (keyFile !== null) args.push('-i', keyFile);
    if (port !== null) args.push('-p', String(port));
    this.#child = spawn(command ?? 'ssh', [...args, '--', host], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-messageCharsMax);
    });
    this.#child.once('error', (error) => {
      this.#failure = 'code' in error && error.code === 'ENOENT' ? 'ssh is not installed' : error.message;
    });
    this.#child.once('exit', (status) => {
      this.#failure ??= this.#said.trim() || `ssh ended with ${status}`;
    });
  }

  /** Why it does not forward any more; null while it runs. */
  get failure(): string | null {
    return this.#failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await ended;
  }
}
