import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SourceNotFound } from '../../errors.ts';
import type { LibvirtControl } from '../kvm-machine.ts';
import {
  LibvirtOutputInvalid,
  LibvirtRefused,
  LibvirtTimedOut,
  LibvirtUnreachable,
  VirshMissing,
} from './libvirt-errors.ts';
import { VirshShell } from './virsh-shell.ts';

/**
 * libvirt through `virsh`: libvirt's own library would have to be compiled for Node. What changes anything is a child process of its own,
 * and so is what the one that stays for questions leaves in doubt. Arguments never pass through a shell of the system's.
 * https://www.libvirt.org/manpages/virsh.html
 */

/** libvirt itself waits 30 s for a domain that is at something else. */
const answerTimeoutMs = 60_000;
const outputBytesMax = 16 * 1024 * 1024;
const messageCharsMax = 500;
/** They change nothing, and print something when they succeed. */
const questions: ReadonlySet<string | undefined> = new Set([
  'backup-dumpxml',
  'checkpoint-dumpxml',
  'checkpoint-list',
  'domblkinfo',
  'domjobinfo',
  'domstats',
  'domuuid',
  'dumpxml',
  'version',
]);
/** Of env(1), for a program that there is not. */
const notFoundStatus = 127;

export interface Virsh extends Disposable {
  readonly uri: string;
  /** What it printed. Throws LibvirtRefused where libvirt answers and says no, and otherwise what libvirt-errors.ts names. */
  run(args: readonly string[], signal: AbortSignal): Promise<string>;
  /** The same, or null where libvirt answers and says no: for questions whose answer is an exit code. */
  ask(args: readonly string[], signal: AbortSignal): Promise<string | null>;
  /**
   * Several commands by one process over one connection, each whatever became of those before. Nothing stops it half way, neither a
   * signal nor the end of this process. Returns what each printed; a command that is refused prints nothing there, and `errors` tells why.
   */
  runAll(commands: readonly string[]): Promise<{ readonly printed: readonly string[]; readonly errors: string }>;
}

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function openVirsh(uri: string): Virsh {
  const call = (args: readonly string[], signal: AbortSignal | null): Promise<Ended> =>
    runTool(uri, ['--quiet', '--connect', uri, ...args], signal);
  let shell: VirshShell | null = null;
  const askShell = async (args: readonly string[], signal: AbortSignal): Promise<string | null> => {
    if (!questions.has(args[0])) return null;
    shell ??= new VirshShell(uri, { timeoutMs: answerTimeoutMs, charsMax: outputBytesMax });
    return await shell.ask(args, signal, () => timedOut(uri));
  };
  const ask = async (args: readonly string[], signal: AbortSignal) => {
    const answer = await askShell(args, signal);
    if (answer !== null) return { stdout: answer, refusal: null };
    const ended = await call(args, signal);
    if (ended.status === 0) return { stdout: ended.stdout, refusal: null };
    // One exit code is for everything: whether libvirt is there at all is a question of its own.
    const reached = args[0] === 'hostname' ? ended : await call(['hostname'], signal);
    if (reached.status !== 0)
      throw new LibvirtUnreachable(`libvirt at ${uri} can't be reached: ${wordsOf(reached)}: does it run, and may we?`);
    return { stdout: null, refusal: wordsOf(ended) };
  };
  return {
    uri,
    async run(args, signal) {
      const { stdout, refusal } = await ask(args, signal);
      if (stdout === null) throw new LibvirtRefused(`libvirt at ${uri} refused ${args[0]}: ${refusal}`);
      return stdout;
    },
    async ask(args, signal) {
      return (await ask(args, signal)).stdout;
    },
    async runAll(commands) {
      // Between two marks is what one command printed. It prints only when it succeeds: refusals go to the other channel.
      const line = commands.flatMap((command) => [command, `echo ${mark}`]).join('; ');
      const { stdout, stderr } = await runTool(uri, ['--connect', uri, line], null);
      const printed = stdout.split(mark).map((text) => text.trim());
      return { printed: commands.map((_, i) => printed[i] ?? ''), errors: wordsOf({ stderr }) };
    },
    [Symbol.dispose]: () => shell?.[Symbol.dispose](),
  };
}

const mark = '=failkit=';

/** `work` gets the path of a file that holds `text`, for as long as it takes. */
export async function withFiles<T>(
  texts: readonly string[],
  work: (paths: readonly string[]) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-virsh-'));
  try {
    const paths = texts.map((_, i) => join(folder, `${i}.xml`));
    for (const [i, path] of paths.entries()) await writeFile(path, texts[i] ?? '', { mode: 0o600 });
    return await work(paths);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The domain's UUID: unlike its name it never looks like an option or a number. */
export async function findDomain(
  virsh: Virsh,
  machineName: string,
  { domain }: LibvirtControl,
  signal: AbortSignal,
): Promise<string> {
  const uuid = await virsh.ask(['domuuid', '--domain', domain], signal);
  if (uuid !== null) return uuid.trim();
  throw new SourceNotFound(
    `machine ${machineName}: libvirt at ${virsh.uri} has no domain ${domain}: see virsh list --all, and set domain`,
  );
}

async function runTool(uri: string, args: readonly string[], signal: AbortSignal | null): Promise<Ended> {
  signal?.throwIfAborted();
  const folder = await mkdtemp(join(tmpdir(), 'failkit-virsh-'));
  try {
    const [stdout, stderr] = [join(folder, 'stdout'), join(folder, 'stderr')];
    const status = await runIntoFiles(uri, args, stdout, stderr, signal);
    signal?.throwIfAborted();
    if (status === notFoundStatus) throw new VirshMissing('virsh is not installed: install libvirt-clients');
    if ((await stat(stdout)).size > outputBytesMax)
      throw new LibvirtOutputInvalid(`libvirt at ${uri} gave more than ${outputBytesMax} bytes for ${args[0]}`);
    return { status, stdout: await readFile(stdout, 'utf8'), stderr: await readFile(stderr, 'utf8') };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Files and a session of its own: so it neither dies of a pipe that broke when this process was killed, nor hears what interrupts us,
 * and a guest that it froze is thawed.
 */
async function runIntoFiles(
  uri: string,
  args: readonly string[],
  stdout: string,
  stderr: string,
  signal: AbortSignal | null,
): Promise<number | null> {
  await using out = await open(stdout, 'w');
  await using err = await open(stderr, 'w');
  const child = spawn('env', ['LC_ALL=C', 'virsh', ...args], { stdio: ['ignore', out.fd, err.fd], detached: true });
  const over = Promise.withResolvers<number | null>();
  const kill = (): void => {
    child.kill('SIGKILL');
  };
  const timer = setTimeout(() => {
    over.reject(timedOut(uri));
    kill();
  }, answerTimeoutMs);
  child.once('error', (cause) => over.reject(new VirshMissing('virsh could not be run', { cause })));
  child.once('exit', (status) => over.resolve(status));
  signal?.addEventListener('abort', kill);
  try {
    return await over.promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', kill);
  }
}

function timedOut(uri: string): LibvirtTimedOut {
  return new LibvirtTimedOut(`libvirt at ${uri} gave no answer within ${answerTimeoutMs / 1000} s`);
}

function wordsOf({ stderr }: Pick<Ended, 'stderr'>): string {
  const lines = stderr.split('\n').map((line) => line.replace(/^error:\s*/, '').trim());
  return lines
    .filter((line) => line !== '')
    .join(': ')
    .slice(0, messageCharsMax);
}
