import { CliWorld, inFlight } from './cli-world.ts';
import type { Injection } from './injection.ts';

/** Kills a process at its first call that changes anything, then at its second, … until it ends by itself. */

/** Closed at 4 MiB, with one record more and its own overhead. */
const segmentBytesMax = 4.5 * 2 ** 20;
/** Files of puts that were under way: segments, and one entry or key record. */
const unfinishedMax = inFlight + 1;
/** Processes that run at one time. */
const atOnce = 2;

export interface KillSweep {
  /** What every process starts from. It is copied, not changed. */
  readonly world: CliWorld;
  readonly args: (world: CliWorld) => readonly string[];
  readonly moment: 'before' | 'after';
  readonly stride: number;
  /** What the injection is to count from, and to count alone. */
  readonly only?: Pick<Injection, 'from' | 'match'>;
  /** Throws unless all is well after the kill. */
  readonly check: (world: CliWorld) => Promise<void>;
}

/** How many kills there were. */
export async function killSweep(sweep: KillSweep): Promise<number> {
  let next = 1;
  let kills = 0;
  const takeTurns = async (): Promise<void> => {
    for (;;) {
      const at = next;
      next += sweep.stride;
      if (!(await killOnce(sweep, at))) return;
      kills++;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, takeTurns));
  return kills;
}

/** False when the process ended by itself before that call. */
async function killOnce({ world, args, moment, only, check }: KillSweep, at: number): Promise<boolean> {
  using copy = new CliWorld(world);
  const ended = await copy.start(args(copy), { ...only, at, moment, signal: 'SIGKILL' }).ended;
  if (ended.signal === null && ended.exitCode === 0) return false;
  const where = `killed ${ended.stderr.match(/injected .*/)?.[0] ?? ''} (call ${at})`;
  if (ended.signal !== 'SIGKILL') throw new Error(`${where}: ended by itself: ${ended.stderr}`);
  if (copy.unfinished().length > unfinishedMax) throw new Error(`${where}: ${copy.unfinished()} are left behind`);
  await check(copy).catch((cause: unknown) => {
    throw new Error(`${where}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  });
  return true;
}

/** Older points restore, the next run publishes what the image holds, and hardly anything is sent again. */
export async function checkNextRun(
  world: CliWorld,
  points: ReadonlyMap<number, string>,
  cleanRunBytes: number | null,
): Promise<number> {
  const before = world.segmentBytes();
  const { point, uploadedBytes } = await world.publishNext();
  await world.requirePoints(new Map([...points, [point, world.imageSha256]]));
  if (cleanRunBytes === null) return 0;
  const again = Math.ceil((before + uploadedBytes - cleanRunBytes) / segmentBytesMax);
  if (again > inFlight) throw new Error(`${again} segments were sent again, with ${inFlight} in flight`);
  return again;
}
