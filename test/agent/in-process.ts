import { runCli } from '../../agent/cli.ts';
import { recordOutput } from '../canary.ts';

/** A command line run in this process. */
export interface InProcess {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export async function failkitHere(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<InProcess> {
  let [stdout, stderr] = ['', ''];
  const exitCode = await runCli(args, {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    environment,
    signal: new AbortController().signal,
  });
  recordOutput(stdout + stderr);
  return { exitCode, stdout, stderr };
}
