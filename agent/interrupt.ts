/** The operator pressed Ctrl-C, or the service manager asked the process to stop. */
export class Interrupted extends Error {
  readonly code = 'INTERRUPTED';
  override readonly name = 'Interrupted';
}

/** Calls the listener each time somebody asks a running command to look at its configuration again. */
export type OnHangUp = (listener: () => void) => Disposable;

/** As service managers ask for it. */
export const onHangUp: OnHangUp = (listener) => {
  process.on('SIGHUP', listener);
  return { [Symbol.dispose]: () => void process.off('SIGHUP', listener) };
};

/** At a terminal the signal says that the terminal is gone, and the process ends, as people expect. */
export const neverHangUp: OnHangUp = () => ({ [Symbol.dispose]: () => undefined });

type StopSignal = 'SIGINT' | 'SIGTERM';
const stopSignals: readonly StopSignal[] = ['SIGINT', 'SIGTERM'];

/**
 * The first signal aborts, and everything winds down: snapshots are removed, files closed. The second one gives up on
 * that at once, through `exit`. What the operator is told, agent/cli.ts says: it knows what else is on the terminal.
 */
export function abortOnSignals(exit: (exitCode: number) => void): AbortSignal {
  const controller = new AbortController();
  for (const name of stopSignals)
    process.on(name, () => {
      if (controller.signal.aborted) return exit(130);
      controller.abort(new Interrupted(`stopped by ${name}`));
    });
  return controller.signal;
}
