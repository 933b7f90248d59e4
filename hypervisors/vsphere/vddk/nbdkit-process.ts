import { type ChildProcess, spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SnapshotDisk, VsphereLogin } from '../disk-reader.ts';
import { Messages } from './messages.ts';
import { thumbprintOf } from './thumbprint.ts';
import type { VddkSettings } from './vddk-settings.ts';

/** One nbdkit for one disk. It ends when it is disposed, and when this process does, even by a signal that nobody can catch. */

const stopTimeoutMs = 10_000;
/** Of the child: the first descriptor after those that every process has. */
const passwordFd = 3;
/** Nothing of this process's own environment is passed on: it may hold credentials. */
export const toolEnvironment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

export interface NbdkitOptions {
  readonly settings: VddkSettings;
  readonly login: VsphereLogin;
  readonly disk: SnapshotDisk;
  /** A folder that only this user may enter; its configuration for VDDK, its temporary files and its socket are in it. */
  readonly folder: string;
  readonly socket: string;
  readonly configFile: string;
}

export class NbdkitProcess implements AsyncDisposable {
  readonly messages: Messages;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #end: string | null = null;

  constructor(options: NbdkitOptions) {
    const password = options.login.password.reveal();
    this.messages = new Messages([password]);
    this.#child = spawn(options.settings.nbdkit, argumentsOf(options), {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
      cwd: options.folder,
      env: { ...toolEnvironment, HOME: options.folder, TMPDIR: options.folder },
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => this.messages.add(text));
    // Where this process has no descriptors left there is none; whoever reads may be gone before: why it is gone is what matters.
    const pipe = this.#child.stdio?.[passwordFd] as Writable | undefined;
    pipe?.on('error', () => undefined);
    pipe?.end(`${password}\n`);
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#end = 'code' in error && error.code === 'ENOENT' ? 'it is not installed' : error.message;
        resolve();
      });
      this.#child.once('close', (status, signal) => {
        this.#end ??= `it ended with ${status ?? signal}`;
        resolve();
      });
    });
  }

  /** How it ended; null while it runs. */
  get end(): string | null {
    return this.#end;
  }

  /** What is in it is gone when this resolves: no file of the snapshot is open any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM');
    using waiting = abortedAtDispose();
    const patience = sleep(stopTimeoutMs, true, { signal: waiting.signal }).catch(() => false);
    if (await Promise.race([this.#ended.then(() => false), patience])) this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

/** The password is read from a descriptor: command lines and environments can be seen by others. */
function argumentsOf({ settings, login, disk, socket, configFile }: NbdkitOptions): readonly string[] {
  const { libdir, transports, compression, unbuffered, thumbprintHash } = settings;
  return [
    ...['--exit-with-parent', '--foreground', '--readonly', '--unix', socket],
    // VDDK tells the number of an error only in what nbdkit prints when it is verbose; the calls of each read are left out.
    ...['--verbose', '-D', 'nbdkit.backend.datapath=0', '-D', 'vddk.datapath=0'],
    ...['vddk', `libdir=${libdir}`, `config=${configFile}`, `server=${login.host}`, `port=${login.port}`],
    ...[
      `user=${login.user}`,
      `password=-${passwordFd}`,
      `thumbprint=${thumbprintOf(login.certificate, thumbprintHash)}`,
    ],
    ...[`vm=moref=${disk.machineRef}`, `snapshot=${disk.snapshotRef}`, `transports=${transports}`],
    ...[`compression=${compression}`, ...(unbuffered ? ['unbuffered=true'] : []), `file=${disk.file}`],
  ];
}

function abortedAtDispose(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  return { signal: controller.signal, [Symbol.dispose]: () => controller.abort() };
}
