import type { DiskReader } from './disk-reader.ts';

/**
 * The disks of a snapshot that are open now. Each is a connection to a host, which has memory for few of them (48 MB for all before vSphere
 * 8.0) and serves 50 at most: who needs another disk closes the one that was idle longest.
 */

/** Of one machine. More only while more are read at the same time. */
export const openDisksMax = 4;

/** A disk that stays open for as long as this is held. */
export interface HeldReader extends Disposable {
  readonly reader: DiskReader;
}

interface Entry {
  readonly opening: Promise<DiskReader>;
  users: number;
}

export class OpenReaders implements AsyncDisposable {
  /** Least recently used first. */
  readonly #entries = new Map<number, Entry>();
  #closing: Promise<void> = Promise.resolve();

  /** `open` is asked for a disk that is not open, by its key. */
  async hold(key: number, open: () => Promise<DiskReader>): Promise<HeldReader> {
    if (!this.#entries.has(key)) await this.#makeRoom();
    const entry = this.#entries.get(key) ?? { opening: open(), users: 0 };
    entry.users += 1;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    const release = (): void => {
      entry.users -= 1;
    };
    try {
      return { reader: await entry.opening, [Symbol.dispose]: release };
    } catch (error) {
      release();
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#entries.keys()];
    for (const key of all) this.#close(key);
    await this.#closing;
  }

  async #makeRoom(): Promise<void> {
    const idle = [...this.#entries].filter(([, { users }]) => users === 0).map(([each]) => each);
    const over = this.#entries.size + 1 - openDisksMax;
    for (const each of idle.slice(0, Math.max(0, over))) this.#close(each);
    await this.#closing;
  }

  #close(key: number): void {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    const before = this.#closing;
    this.#closing = (async () => {
      try {
        await before;
      } finally {
        // Whoever asked for it was told why it did not open.
        const reader = await entry?.opening.catch(() => null);
        await reader?.[Symbol.asyncDispose]();
      }
    })();
  }
}
