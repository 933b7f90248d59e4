import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** CPU time of a server that goes on running, as the kernel counts it: its own and that of its children that have ended. */

/** Linux gives these times in hundredths of a second, whatever the kernel's own tick. */
const tickMs = 10;
const settleMs = 200;

/** Since it started. */
export function processCpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in parentheses, may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [user, system, childUser, childSystem] = fields.slice(11, 15).map(Number);
  return ((user ?? 0) + (system ?? 0) + (childUser ?? 0) + (childSystem ?? 0)) * tickMs;
}

/** What the server took for it; a moment is left to what it does after its last answer. `pid` null: there is no server. */
export async function withServerCpu<T>(
  pid: number | null,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly serverCpuMs: number }> {
  if (pid === null) return { result: await work(), serverCpuMs: 0 };
  const before = processCpuMs(pid);
  const result = await work();
  await sleep(settleMs);
  return { result, serverCpuMs: processCpuMs(pid) - before };
}
