import { createInterface } from 'node:readline';

/**
 * A process of its own that outlives the agent: it reads what the agent says on its standard input, and when that ends without the word that
 * all is done, it ends the snapshot. Whoever stops a service stops all of its processes; this one ends when its work is done. Until
 * then it does nothing, and so loads nothing.
 */

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
let guarded = '';
let isDone = false;
for await (const line of createInterface({ input: process.stdin })) {
  // As `doneWord` in snapshot-guard.ts.
  if (line === 'done') isDone = true;
  else guarded = line;
}
if (guarded !== '' && !isDone) {
  const { endGuarded } = await import('./end-guarded.ts');
  await endGuarded(guarded);
}
