/** Runs in every test process before its first test: records whatever the process prints. */
import { recordOutput } from './canary.ts';

for (const stream of [process.stdout, process.stderr]) {
  stream.write = new Proxy(stream.write, {
    apply(write, target, args: Parameters<typeof stream.write>) {
      recordOutput(args[0]);
      return Reflect.apply(write, target, args);
    },
  });
}
