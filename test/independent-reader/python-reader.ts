import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** The independent reader's commands, run under the Python environment that install.sh makes outside the clone. */

const run = promisify(execFile);
const installTimeoutMs = 300_000;
const outputBytesMax = 256 * 2 ** 20;

export interface PythonReader {
  /** What the command prints. Rejects with what it complains about when it fails. */
  call(command: string, bucket: string, args: readonly string[]): Promise<unknown>;
}

/** The reader, or the text of a skipped test where its environment can't be made. */
export async function openPythonReader(): Promise<PythonReader | string> {
  try {
    const { stdout } = await run(join(import.meta.dirname, 'install.sh'), { timeout: installTimeoutMs });
    return { call: (command, bucket, args) => call(stdout.trim(), command, bucket, args) };
  } catch (error) {
    return `needs python3 with venv, and the packages of test/independent-reader/requirements.txt (${lastLine(error)})`;
  }
}

async function call(python: string, command: string, bucket: string, args: readonly string[]): Promise<unknown> {
  const script = join(import.meta.dirname, 'reader.py');
  const { stdout } = await run(python, [script, command, bucket, ...args], { maxBuffer: outputBytesMax });
  return JSON.parse(stdout);
}

function lastLine(error: unknown): string {
  const text = error instanceof Error && 'stderr' in error ? `${error.stderr}` : `${error}`;
  return text.trim().split('\n').at(-1) ?? '';
}
