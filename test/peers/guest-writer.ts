/** A program in the guest that never stops writing, waits for each write to be on disk, and measures how long that took. */
import type { Guest } from './guest.ts';

/** Any machine with the guest's shell. */
type Shell = Pick<Guest, 'run'>;

const logFile = '/run/writer.log';

export interface WriteLatency {
  readonly writes: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
}

export interface WrittenSlots {
  readonly good: number;
  /** Of a copy made meanwhile at most one: the write that was under way. */
  readonly torn: number;
  readonly empty: number;
  /** The number of the newest write that is there, whole. */
  readonly newest: number;
}

/** `file`: in the guest; a file of `mib`, or a whole disk. Between two writes it sleeps for `gapMs`. */
export async function startWriter(
  guest: Shell,
  { file, mib, gapMs = 5 }: { readonly file: string; readonly mib: number; readonly gapMs?: number },
): Promise<void> {
  await said(guest, `rm -f ${logFile}; writer run ${file} ${mib} ${logFile} ${gapMs} & sleep 0.2; kill -0 $!`);
}

export async function stopWriter(guest: Shell): Promise<void> {
  await said(guest, 'killall writer; while pidof writer >/dev/null; do sleep 0.05; done');
}

/** The number of the newest write that was on disk when the guest was asked; 0 before the first. */
export async function newestWrite(guest: Shell): Promise<number> {
  return Number((await said(guest, `tail -n 1 ${logFile} | cut -d' ' -f1`)) || 0);
}

/** Milliseconds since the guest's boot, on the clock of the writer. */
export async function guestClockMs(guest: Shell): Promise<number> {
  return Number(await said(guest, "cut -d' ' -f1 /proc/uptime")) * 1000;
}

/** Of the writes that ended in that span of the guest's clock. */
export async function writeLatency(guest: Shell, fromMs = 0, toMs = Number.MAX_SAFE_INTEGER): Promise<WriteLatency> {
  return JSON.parse(await said(guest, `writer latency ${logFile} ${Math.floor(fromMs)} ${Math.ceil(toMs)}`));
}

/** What of the writer's slots is in `file`, on any guest. */
export async function checkWritten(guest: Shell, file: string): Promise<WrittenSlots> {
  return JSON.parse(await said(guest, `writer check ${file}`));
}

async function said(guest: Shell, line: string): Promise<string> {
  const { code, output } = await guest.run(line);
  if (code !== 0) throw new Error(`${line}: ${code}: ${output}`);
  return output;
}
