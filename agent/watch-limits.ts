import type { Bandwidth } from '../storage-targets/bandwidth.ts';
import type { Config } from './config/config-schema.ts';
import { fileStateNow, fileStateOf } from './file-state.ts';
import { formatSpeed } from './quantities.ts';

/** A change is taken over at the second look that finds it, within two thirds of a second. */
const lookEveryMs = 300;

/** The rates of a running command. */
export interface RunningLimits {
  readonly upload: Bandwidth;
  readonly download: Bandwidth;
  readonly read: Bandwidth;
}

export interface LimitsWatchOptions {
  readonly file: string;
  /** Its state right before the command read it. */
  readonly loadedAs: string;
  /** Throws when the file can't be used. */
  readonly reload: () => Config;
  readonly limits: RunningLimits;
  /** To the operator. */
  readonly say: (line: string) => void;
}

/**
 * Keeps the rates of a running command to what the configuration file says now. Looking at the file's times works on every
 * file system, and for files that editors and deployments put in the place of the old one. Nothing but the rates is taken over.
 */
export class LimitsWatch implements Disposable {
  readonly #options: LimitsWatchOptions;
  #timer: NodeJS.Timeout | null = null;
  #ended = false;
  #known: string;
  /** As it was when it was last looked at: a file that still changes may be half written. */
  #seen: string | null = null;

  constructor(options: LimitsWatchOptions) {
    this.#options = options;
    this.#known = options.loadedAs;
  }

  start(): void {
    const again = () => {
      if (!this.#ended) this.#timer = setTimeout(() => void this.look().finally(again), lookEveryMs).unref();
    };
    void this.look().finally(again);
  }

  async look(): Promise<void> {
    const state = await fileStateOf(this.#options.file);
    const settled = state === this.#seen;
    this.#seen = state;
    if (state === this.#known || !settled) return;
    this.#known = state;
    this.#takeOver(false);
  }

  /** Because somebody asks for it, who also wants to hear that nothing changed. */
  reread(): void {
    // What comes while it is read, or right after, is another state, and is taken over by the next look.
    this.#known = fileStateNow(this.#options.file);
    this.#takeOver(true);
  }

  [Symbol.dispose](): void {
    this.#ended = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #takeOver(sayAlways: boolean): void {
    const { reload, limits, say } = this.#options;
    try {
      const { uploadBytesPerSecond, downloadBytesPerSecond, readBytesPerSecond } = reload().limits;
      const before = describe(limits);
      limits.upload.set(uploadBytesPerSecond);
      limits.download.set(downloadBytesPerSecond);
      limits.read.set(readBytesPerSecond);
      const now = describe(limits);
      if (now !== before) say(`the limits are now: ${now}`);
      else if (sayAlways) say(`the limits stay as they are: ${now}`);
    } catch (error) {
      say(`the limits stay as they are, for the configuration can't be used:\n${messageOf(error)}`);
    }
  }
}

function describe({ upload, download, read }: RunningLimits): string {
  const rates = Object.entries({ upload, download, read });
  return rates.map(([name, { bytesPerSecond }]) => `${name} ${rateText(bytesPerSecond)}`).join(', ');
}

function rateText(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? 'unlimited' : formatSpeed(bytesPerSecond);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
