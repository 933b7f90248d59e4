/** Sizes, durations and speeds as people read them. */

const unitNames = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const unitStep = 1024;
const minuteSeconds = 60;
const hourSeconds = 60 * minuteSeconds;
const daySeconds = 24 * hourSeconds;

/** `0 B`, `512 B`, `1.5 KiB`, `64.0 MiB`, `100 GiB`: three digits at most before the unit changes. */
export function formatBytes(bytes: number): string {
  let amount = bytes;
  let unit = 0;
  // 1023.95 would be printed as 1024, so the unit changes a little earlier.
  while (amount >= unitStep - 0.5 && unit < unitNames.length - 1) {
    amount /= unitStep;
    unit += 1;
  }
  const digits = unit === 0 || amount >= 99.95 ? 0 : 1;
  return `${amount.toFixed(digits)} ${unitNames[unit]}`;
}

export function formatSpeed(bytesPerSecond: number): string {
  return Number.isFinite(bytesPerSecond) ? `${formatBytes(bytesPerSecond)}/s` : '–';
}

/** `850 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`, `2 d 4 h`. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 999.5) return `${Math.round(durationMs)} ms`;
  if (durationMs < 59_950) return `${(durationMs / 1000).toFixed(1)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < hourSeconds) return twoUnits(seconds, minuteSeconds, 'min', 1, 's', 2);
  if (seconds < daySeconds) return twoUnits(seconds, hourSeconds, 'h', minuteSeconds, 'min', 2);
  return twoUnits(seconds, daySeconds, 'd', hourSeconds, 'h', 1);
}

/** What is left of a guess: `a few seconds`, `about 35 s`, `about 4 min`, `about 3 h 20 min`, `about 2 d 4 h`. */
export function formatRemaining(durationMs: number): string {
  const seconds = durationMs / 1000;
  if (seconds < 7.5) return 'a few seconds';
  if (seconds < 57.5) return `about ${Math.round(seconds / 5) * 5} s`;
  if (seconds < hourSeconds - 30) return `about ${Math.max(1, Math.round(seconds / minuteSeconds))} min`;
  const step = seconds < daySeconds ? 10 * minuteSeconds : hourSeconds;
  return `about ${formatDuration(Math.round(seconds / step) * step * 1000)}`;
}

function twoUnits(seconds: number, large: number, largeName: string, small: number, smallName: string, digits: number) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName} ${String(rest).padStart(digits, '0')} ${smallName}`;
}

const durationParts = /^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)(?:min|m))?(?:(\d+)s)?$/;

/** `90s`, `15min`, `4h`, `1d12h`, as people type it; null for anything else. */
export function parseDuration(text: string): number | null {
  const match = durationParts.exec(text.replace(/\s/g, ''));
  if (match === null || text.trim() === '') return null;
  const [days = 0, hours = 0, minutes = 0, seconds = 0] = match.slice(1).map((part) => Number(part ?? 0));
  return (days * daySeconds + hours * hourSeconds + minutes * minuteSeconds + seconds) * 1000;
}

/** `1 block`, `2 blocks`: for words whose plural ends in s. */
export function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

/** `2026-11-30 06:44`, in UTC. */
export function minuteText(timeMs: number): string {
  return new Date(timeMs).toISOString().replace('T', ' ').slice(0, 16);
}

/** `2026-11-30 06:44:10`, in UTC. */
export function secondText(timeMs: number): string {
  return new Date(timeMs).toISOString().replace('T', ' ').slice(0, 19);
}
