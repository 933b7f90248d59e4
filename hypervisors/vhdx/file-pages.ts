import { type RandomAccessFile, readBytes } from './random-access-file.ts';

/** Block tables reach 512 MiB, and sector bitmaps as much: they are read by the page, and few pages are kept. */

export const pageBytes = 64 * 1024;
/** Of a whole chain. */
const pagesMax = 64;

/** Pages of all files of one chain; the one that was not asked for longest goes first. */
export class PageCache {
  readonly #pages = new Map<string, Promise<Uint8Array>>();
  #files = 0;

  of(file: RandomAccessFile): FilePages {
    const name = this.#files++;
    return {
      page: (number, signal) => this.#page(`${name}/${number}`, file, number, signal),
    };
  }

  #page(key: string, file: RandomAccessFile, number: number, signal: AbortSignal): Promise<Uint8Array> {
    const known = this.#pages.get(key);
    this.#pages.delete(key);
    const page = known ?? this.#load(key, file, number, signal);
    this.#pages.set(key, page);
    for (const oldest of this.#pages.keys()) {
      if (this.#pages.size <= pagesMax) break;
      this.#pages.delete(oldest);
    }
    return page;
  }

  async #load(key: string, file: RandomAccessFile, number: number, signal: AbortSignal): Promise<Uint8Array> {
    const offset = number * pageBytes;
    try {
      return await readBytes(file, offset, Math.min(pageBytes, file.sizeBytes - offset), signal);
    } catch (error) {
      // Whoever asks next tries again.
      this.#pages.delete(key);
      throw error;
    }
  }
}

export interface FilePages {
  /** By its number; the file's last page may be shorter. Nobody writes to it. */
  page(number: number, signal: AbortSignal): Promise<Uint8Array>;
}
