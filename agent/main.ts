import { completeNames, namesVerb } from './complete-names.ts';

/** `failkit points | head` closes our output early; that is no error of ours, and no reason to stop a run. */
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

const args = process.argv.slice(2);
if (args[0] === namesVerb) process.stdout.write(completeNames(args.slice(1)));
else {
  const { runProcess } = await import('./run-process.ts');
  process.exitCode = await runProcess(args);
}
