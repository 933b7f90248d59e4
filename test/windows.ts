/** What went by until then, counted from the beginning. */
export interface Sample {
  readonly ms: number;
  readonly bytes: number;
}

const windowMs = 10_000;
const stepMs = 100;

/** Of all windows of ten seconds: the bytes in the emptiest and the fullest, as shares of what the rate allows. */
export function worstShares(samples: readonly Sample[], bytesPerSecond: number, startMs: number) {
  const shares: number[] = [];
  for (let from = startMs; from + windowMs <= (samples.at(-1)?.ms ?? 0); from += stepMs)
    shares.push((bytesAt(samples, from + windowMs) - bytesAt(samples, from)) / (bytesPerSecond * (windowMs / 1000)));
  return { least: Math.min(...shares), most: Math.max(...shares) };
}

function bytesAt(samples: readonly Sample[], ms: number): number {
  const next = samples.findIndex((sample) => sample.ms >= ms);
  const [before, after] = [samples[next - 1], samples[next]];
  if (before === undefined || after === undefined) return after?.bytes ?? Number.NaN;
  return before.bytes + ((after.bytes - before.bytes) * (ms - before.ms)) / (after.ms - before.ms);
}
