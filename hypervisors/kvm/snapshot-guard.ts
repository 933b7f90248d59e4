import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';

/**
 * A second process that ends the snapshot when this one is killed: so that nobody's guest stays frozen, or stopped, or writes into a scratch
 * folder that nobody watches, until the next run.
 */

const byMonitor = z.object({
  kind: z.literal('qmp'),
  monitor: z.string(),
  guestAgent: z.string().nullable(),
  scratch: z.object({ folder: z.string(), prefix: z.string(), freeBytesMin: z.number() }),
  nbdSocket: z.string(),
  tag: z.string(),
});
const byLibvirt = z.object({
  kind: z.literal('libvirt'),
  uri: z.string(),
  uuid: z.string(),
  tag: z.string(),
  /** Of this run alone: jobs that keep nothing in it are another's. */
  folder: z.string(),
});
const guardedSnapshot = z.discriminatedUnion('kind', [byMonitor, byLibvirt]);
export type GuardedByMonitor = z.infer<typeof byMonitor>;
export type GuardedByLibvirt = z.infer<typeof byLibvirt>;
type GuardedSnapshot = z.infer<typeof guardedSnapshot>;

/** What the agent tells its guard when nothing of the snapshot is left; before that, what is to be guarded. A line each. */
const doneWord = 'done';

/** Its heap: it holds next to nothing. */
const heapMiB = 32;

export class SnapshotGuard implements AsyncDisposable {
  readonly #input: Writable;

  constructor(guarded: GuardedSnapshot) {
    const file = new URL(`./guard-process${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);
    const args = [`--max-old-space-size=${heapMiB}`, fileURLToPath(file)];
    // A session of its own: what interrupts us does not interrupt it.
    const guard = spawn(process.execPath, args, { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    // Without it a snapshot is what it was before there were guards.
    guard.on('error', () => undefined);
    guard.stdin.on('error', () => undefined);
    guard.unref();
    this.#input = guard.stdin;
    this.#say(JSON.stringify(guarded));
  }

  /** Nothing of the snapshot is left. Without this word the guard sees to it. */
  done(): void {
    this.#say(doneWord);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#input.end();
  }

  #say(line: string): void {
    this.#input.write(`${line}\n`);
  }
}

/** Null for what the agent did not come to say whole. */
export function parseGuarded(line: string): GuardedSnapshot | null {
  try {
    return guardedSnapshot.safeParse(JSON.parse(line)).data ?? null;
  } catch {
    return null;
  }
}
