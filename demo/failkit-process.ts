import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import * as z from 'zod';
import { ClaimFailed } from './claim.ts';
import { environment } from './programs.ts';
import { clone } from './real-files.ts';

/** The real command line in a process of its own, read through `--json`. */

export interface Ended {
  readonly exitCode: number | null;
  readonly killedBy: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Started {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
}

/** Starts `failkit` with `cwd` as its working folder. It is killed when `signal` is aborted. */
export function startFailkit(args: readonly string[], cwd: string, signal: AbortSignal): Started {
  const child = spawn(join(clone, 'bin', 'failkit'), ['--json', ...args], { cwd, signal, env: environment() });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode, killedBy) => resolve({ exitCode, killedBy, stdout, stderr }));
  });
  return { process: child, ended };
}

/** Runs it to its end and returns its document. Throws ClaimFailed when it ends with another exit code than expected. */
export async function failkit<Document>(
  args: readonly string[],
  document: z.ZodType<Document>,
  options: { readonly cwd: string; readonly signal: AbortSignal; readonly exitCode?: number },
): Promise<Document> {
  const { exitCode, stdout, stderr } = await startFailkit(args, options.cwd, options.signal).ended;
  const expected = options.exitCode ?? 0;
  const command = `failkit ${args.join(' ')}`;
  if (exitCode !== expected)
    throw new ClaimFailed(`${command}\nshould end with ${expected}, and ended with ${exitCode}:\n${stderr.trim()}`);
  const answer = document.safeParse(JSON.parse(stdout));
  if (answer.success) return answer.data;
  throw new ClaimFailed(`${command} answers as documented: ${z.prettifyError(answer.error)}`);
}

export const madeRepository = z.object({ rootFingerprint: z.string(), kit: z.string() });

const runOfMachine = z.object({
  machine: z.string(),
  point: z.number(),
  rpoMs: z.number().nullable(),
  adopted: z.boolean(),
  durationMs: z.number(),
  readBytes: z.number(),
  changedBytes: z.number(),
  uploadedBytes: z.number(),
});
export type RunOfMachine = z.output<typeof runOfMachine>;
export const publishedPoints = z.object({ machines: z.tuple([runOfMachine]) });

export const listedPoints = z.object({
  machines: z.tuple([z.object({ name: z.string(), points: z.array(z.object({ point: z.number() })) })]),
});

export const restoredPoint = z.object({
  point: z.number(),
  durationMs: z.number(),
  writtenBytes: z.number(),
  fetchedBytes: z.number(),
});
export type RestoredPoint = z.output<typeof restoredPoint>;

export const failedCommand = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

export const verifiedMachine = z.object({
  machines: z.tuple([
    z.object({
      findings: z.array(z.object({ object: z.string(), code: z.string() })),
      whole: z.array(z.number()),
      hurt: z.array(z.number()),
      readBytes: z.number(),
    }),
  ]),
});
