import { spawn } from 'node:child_process';

/** A program that believes it talks to a person: `script` (util-linux) gives it a terminal. */

export interface Piece {
  readonly atMs: number;
  readonly text: string;
}

export interface Recording {
  readonly exitCode: number | null;
  readonly pieces: readonly Piece[];
}

export interface TerminalOptions {
  readonly columns: number;
  readonly cwd: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
}

/** `words` are not quoted for a shell: give none that would need it. */
export async function recordTerminal(words: readonly string[], options: TerminalOptions): Promise<Recording> {
  const { columns, cwd, environment, signal } = options;
  const command = `stty cols ${columns} rows 40; exec ${words.join(' ')}`;
  const child = spawn('script', ['-qfec', command, '/dev/null'], {
    cwd,
    signal,
    env: { ...environment, TERM: 'xterm-256color', SHELL: '/bin/sh' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const startedMs = performance.now();
  const pieces: Piece[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    pieces.push({ atMs: performance.now() - startedMs, text });
  });
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode) => resolve({ exitCode, pieces }));
  });
}
