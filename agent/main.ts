import { runCli } from './cli.ts';
import { processEnvironment } from './config/environment.ts';
import { abortOnSignals } from './interrupt.ts';

/** `failkit points | head` closes our output early; that is no error of ours, and no reason to stop a run. */
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

const signal = abortOnSignals((exitCode) => process.exit(exitCode));

process.exitCode = await runCli(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  environment: processEnvironment(),
  signal,
});
