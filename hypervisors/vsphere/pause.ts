import { setTimeout as sleep } from 'node:timers/promises';

/** Whoever interrupts it hears their own reason, not Node's. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}
