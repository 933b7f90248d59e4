import { readFileSync } from 'node:fs';

/** CPU time as the kernel counts it, in milliseconds. */

/** Linux gives these times in hundredths of a second, whatever its own tick. */
const tickMs = 10;

/** Of a process that goes on running, since it started: its own, and that of its children that have ended. */
export function processCpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in parentheses, may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return sumOf(fields.slice(11, 15)) * tickMs;
}

/** Of everything that runs, and of what the host of a virtual machine took for others, since the machine started. */
export function machineCpuMs(): number {
  const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  const [user, nice, system, , , interrupts, softInterrupts, stolen] = first.split(/\s+/).slice(1);
  return sumOf([user, nice, system, interrupts, softInterrupts, stolen]) * tickMs;
}

function sumOf(ticks: readonly (string | undefined)[]): number {
  return ticks.reduce((sum, text) => sum + Number(text ?? 0), 0);
}
