/** Does a run find far more changed, or far less compressible data, than the machine's earlier ones? Ransomware, or a runaway job. */

/** What one run found changed, of the disks that the newest point has, too. */
export interface ChangeSample {
  /** Plaintext of the changed blocks. */
  readonly changedBytes: number;
  /** What is stored of them. */
  readonly storedBytes: number;
  /** Since the snapshot before. */
  readonly elapsedMs: number;
  /** Of these disks. */
  readonly capacityBytes: number;
  /** False: compression is off, and what is stored tells nothing. */
  readonly compressed: boolean;
}

export interface ChangeLimits {
  readonly enabled: boolean;
  /** Runs that change less are never remarkable. */
  readonly fromBytes: number;
}

/** Runs that are remembered. Half of them decide what is usual: so many in a row have to be different until that is what is usual. */
export const samplesMax = 48;
/** With fewer, nobody knows what is usual. */
export const samplesMin = 8;
const minuteMs = 60_000;
/** A sync right after another one is not taken for a burst; nor is what a machine did in a weekend spread over two days. */
const elapsedMinMs = 15 * minuteMs;
const elapsedMaxMs = 24 * 60 * minuteMs;
/** Makes the median absolute deviation of normally distributed values their standard deviation. */
const deviationScale = 1.4826;

/** A rate is far off when it is above all of these. An update of the system, three to five times a busy day, is not. */
const farRate = { times: 10, deviations: 10, shareOfDisk: 0.05 } as const;
/** So much is enough when what changed does not compress either, and usually does. */
const raisedRate = { times: 2, deviations: 3, shareOfDisk: 0.01 } as const;
/** Stored of a byte that changed. */
const incompressible = { from: 0.9, more: 0.2, deviations: 6 } as const;

/** What is remarkable about a run, in words for the operator; null: nothing, or too little is known. */
export function remarkableChange(
  sample: ChangeSample,
  history: readonly ChangeSample[],
  { enabled, fromBytes }: ChangeLimits,
): string | null {
  if (!enabled || history.length < samplesMin || sample.changedBytes < Math.max(1, fromBytes)) return null;
  const rates = spreadOf(history.map(rateOf));
  const jumps = (far: { times: number; deviations: number; shareOfDisk: number }): boolean =>
    rateOf(sample) > rates.median * far.times &&
    rateOf(sample) > rates.median + far.deviations * rates.deviation &&
    sample.changedBytes >= sample.capacityBytes * far.shareOfDisk;
  if (!jumps(farRate) && !(jumps(raisedRate) && turnsIncompressible(sample, history))) return null;
  return describe(sample, history);
}

function turnsIncompressible(sample: ChangeSample, history: readonly ChangeSample[]): boolean {
  const shares = history.map(storedShare).filter((share) => share !== null);
  const now = storedShare(sample);
  if (now === null || shares.length < samplesMin) return false;
  const { median, deviation } = spreadOf(shares);
  return (
    now >= incompressible.from && now - median >= Math.max(incompressible.more, incompressible.deviations * deviation)
  );
}

/** Bytes per hour. */
function rateOf({ changedBytes, elapsedMs }: ChangeSample): number {
  const ms = Math.min(elapsedMaxMs, Math.max(elapsedMinMs, elapsedMs));
  return (changedBytes * 60 * minuteMs) / ms;
}

function storedShare({ changedBytes, storedBytes, compressed }: ChangeSample): number | null {
  return compressed && changedBytes > 0 ? storedBytes / changedBytes : null;
}

/** Median and median absolute deviation: a few odd runs among the others move neither. */
function spreadOf(values: readonly number[]): { readonly median: number; readonly deviation: number } {
  const middle = medianOf(values);
  return { median: middle, deviation: deviationScale * medianOf(values.map((value) => Math.abs(value - middle))) };
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[half - 1] ?? 0)) / 2;
}

/** `changed 41 % of its disks at ratio 1.0; usual is 0.5 % at 2.4`. */
function describe(sample: ChangeSample, history: readonly ChangeSample[]): string {
  const usualShare = medianOf(
    history.map(({ changedBytes, capacityBytes }) => changedBytes / Math.max(1, capacityBytes)),
  );
  const shares = history.map(storedShare).filter((share) => share !== null);
  const now = percent(sample.changedBytes / Math.max(1, sample.capacityBytes));
  const usual = percent(usualShare);
  return `changed ${now} of its disks${ratio(storedShare(sample))}; usual is ${usual}${shares.length === 0 ? '' : ratio(medianOf(shares))}`;
}

function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.005) return '< 0.01 %';
  return `${value.toFixed(value === 0 || value >= 9.5 ? 0 : value < 0.095 ? 2 : 1)} %`;
}

function ratio(share: number | null): string {
  return share === null ? '' : ` at ratio ${(1 / Math.max(share, 0.001)).toFixed(1)}`;
}
