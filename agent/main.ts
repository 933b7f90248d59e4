import { runCli } from './cli.ts';
import { processEnvironment } from './config/environment.ts';
import { abortOnSignals, neverHangUp, onHangUp } from './interrupt.ts';

/** `failkit points | head` closes our output early; that is no error of ours. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const signal = abortOnSignals(
  (line) => process.stderr.write(`${line}\n`),
  (exitCode) => process.exit(exitCode),
);

process.exitCode = await runCli(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  environment: processEnvironment(),
  signal,
  onHangUp: process.stdin.isTTY || process.stderr.isTTY ? neverHangUp : onHangUp,
});
