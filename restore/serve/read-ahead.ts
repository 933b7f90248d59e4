/** Reads at as many places at once can be told from random ones. */
const streamsMax = 8;
/** So much has to be read in a row before anything is read ahead. */
const inRowBytesMin = 512 * 1024;
/** Requests that are under way together arrive in any order; gaps up to so many times their length do not end a row. */
const gapLengthsMax = 4;

interface Stream {
  /** Where the next read is expected. */
  end: number;
  inRowBytes: number;
  /** Up to there it was asked for. */
  aheadOf: number;
}

/**
 * Tells rows of reads from random ones. What is read ahead is at most half of what was read in a row, so that a row that ends wastes a third
 * of what was fetched at worst; random reads cause none.
 */
export class ReadAhead {
  readonly #bytesMax: number;
  /** The one that was used longest ago first. */
  readonly #streams: Stream[] = [];

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** To be called with each read; returns what should be fetched now, beyond it. */
  after(offset: number, length: number): { readonly offset: number; readonly end: number } | null {
    const stream = this.#streamOf(offset, length);
    const end = offset + length;
    if (end <= stream.end) return null;
    stream.inRowBytes += length;
    stream.end = end;
    stream.aheadOf = Math.max(stream.aheadOf, end);
    if (stream.inRowBytes < inRowBytesMin) return null;
    const window = Math.min(this.#bytesMax, stream.inRowBytes / 2);
    // Half a window at a time: fewer, longer requests.
    if (stream.aheadOf - end > window / 2) return null;
    const ahead = { offset: stream.aheadOf, end: end + Math.floor(window) };
    stream.aheadOf = ahead.end;
    return ahead;
  }

  #streamOf(offset: number, length: number): Stream {
    const reach = gapLengthsMax * length;
    const at = this.#streams.findIndex(({ end }) => offset >= end - reach && offset <= end + reach);
    const [known] = at === -1 ? [] : this.#streams.splice(at, 1);
    const stream = known ?? { end: offset, inRowBytes: 0, aheadOf: offset };
    if (known === undefined && this.#streams.length === streamsMax) this.#streams.shift();
    this.#streams.push(stream);
    return stream;
  }
}
