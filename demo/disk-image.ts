import { hiddenBytesIn, packages } from './real-files.ts';
/** A disk that is filled and changed as real ones are, without root and without mounting anything. */
export interface DiskImage {
  readonly path: string;
  /** What is on it, in a few words. */
  readonly description: string;
  /** Rewrites small files all over the disk, and removes a few. */
  changeHereAndThere(signal: AbortSignal): Promise<Changed>;
  /** Puts one large program on it. */
  installRelease(signal: AbortSignal): Promise<Installed>;
  /** Null where the image has nothing to check but its bytes; else what was checked. Throws when an image is not in order. */
  checkImage(path: string, signal: AbortSignal): Promise<string | null>;
}

export interface Changed {
  readonly rewritten: number;
  readonly removed: number;
}

export interface Installed {
  readonly bytes: number;
}

/** Files that the story looks for later: what is known of the plaintext. */
export interface KnownContent {
  /** A text that stands in a file of the image. */
  readonly text: string;
  /** Random bytes that stand in another one: no compression alters them. */
  readonly noise: Uint8Array;
}

const mebibyte = 2 ** 20;
/** With room for the caches that tests leave below `node_modules`. */
export const imageBytes =
  640 * mebibyte + 64 * mebibyte * Math.max(0, Math.ceil((hiddenBytesIn(packages) - 16 * mebibyte) / (64 * mebibyte)));
/** Every so many-th small file is rewritten, … */
export const rewriteEvery = 40;
/** … and every so many-th of those is removed. */
export const removeEvery = 6;
