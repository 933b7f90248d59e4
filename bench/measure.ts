import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

/** What one process took, its children included. */
export interface Measured {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly stdout: string;
}

export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Runs it to its end under bash's own clock; throws with the end of what it said when it fails. */
export async function measure({ command, args, env = {}, cwd }: Program): Promise<Measured> {
  const child = spawn('bash', ['-c', 'TIMEFORMAT="%R %U %S"; time "$0" "$@" 2>&3', command, ...args], {
    cwd,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const streams = child.stdio.slice(1).map((stream) => text(stream as NodeJS.ReadableStream));
  const [[code], stdout = '', times = '', said = ''] = await Promise.all([once(child, 'close'), ...streams]);
  if (code !== 0) throw new Error(`${command} ${args[0]} ended with ${code}: ${(said + stdout).slice(-1500)}`);
  const [wall = 0, user = 0, system = 0] = times.trim().split(/\s+/).slice(-3).map(Number);
  return { wallMs: wall * 1000, cpuMs: (user + system) * 1000, stdout };
}
