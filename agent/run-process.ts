import { runCli } from './cli.ts';
import { processEnvironment } from './config/environment.ts';
import { abortOnSignals, neverHangUp, onHangUp } from './interrupt.ts';
import type { ExitCode } from './remedy.ts';

/** The command line with the streams, the environment and the signals of this process. */
export async function runProcess(args: readonly string[]): Promise<ExitCode> {
  return await runCli(args, {
    stdout: process.stdout,
    stderr: process.stderr,
    environment: processEnvironment(),
    signal: abortOnSignals((exitCode) => {
      process.stderr.write('\nstopped at once: the next run goes on from what was stored\n');
      process.exit(exitCode);
    }),
    onHangUp: process.stdin.isTTY || process.stderr.isTTY ? neverHangUp : onHangUp,
  });
}
