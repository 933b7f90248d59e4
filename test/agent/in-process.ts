import { runCli } from '../../agent/cli.ts';
import { neverHangUp } from '../../agent/interrupt.ts';
import { recordOutput } from '../canary.ts';

/** A command line run in this process. */
export interface InProcess {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** `columns`: standard output is a terminal that wide. The environment is empty where none is given. */
export async function failkitHere(
  args: readonly string[],
  { columns, environment = {} }: { readonly columns?: number; readonly environment?: Record<string, string> } = {},
): Promise<InProcess> {
  let [stdout, stderr] = ['', ''];
  const exitCode = await runCli(args, {
    stdout: { write: (text: string) => (stdout += text), ...(columns !== undefined && { isTTY: true, columns }) },
    stderr: { write: (text: string) => (stderr += text) },
    environment,
    signal: new AbortController().signal,
    onHangUp: neverHangUp,
  });
  recordOutput(stdout + stderr);
  return { exitCode, stdout, stderr };
}
