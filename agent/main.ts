import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { completeNames, namesVerb } from './complete-names.ts';

/** `failkit points | head` closes our output early; that is no error of ours, and no reason to stop a run. */
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

// Of the build: a tenth of a second less for each start. Where its folder can't be written, Node goes on without.
if (import.meta.filename.endsWith('.js')) enableCompileCache(join(import.meta.dirname, 'compile-cache'));

const args = process.argv.slice(2);
if (args[0] === namesVerb) process.stdout.write(completeNames(args.slice(1)));
else {
  const { runProcess } = await import('./run-process.ts');
  process.exitCode = await runProcess(args);
}
