import type { Measured, Program } from '../measure.ts';

/** The same work by each program: one image, the same S3 server, a bucket of its own. */

export type Compression = 'fastest' | 'off';

export interface Place {
  /** Host and port. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** For configuration, caches and state; empty. */
  readonly folder: string;
  /** In memory, where the system has a place for that; empty. */
  readonly memoryFolder: string;
  /** Alone in its folder, for who takes folders only. */
  readonly image: string;
  /** Of the agent. */
  readonly launcher: string;
}

export interface Contestant {
  readonly name: string;
  /** Folder of the peer that installs it; null for what is here anyway. */
  readonly peer: string | null;
  readonly compressions: readonly Compression[];
  /** What its rows can't show: what it does not do, or does elsewhere. */
  readonly note: string | null;
  version(): Promise<string>;
  open(place: Place, compression: Compression): Promise<Run>;
}

/** One repository of one program. */
export interface Run {
  /** Where everything is stored; null: in the bucket. */
  readonly storeFolder: string | null;
  seed(): Promise<Measured>;
  /** Reads everything again though nothing changed. */
  resync(): Promise<Measured>;
  /** Into an empty folder. Returns where the image is then. */
  restore(to: string): Promise<Restored>;
  /** Shows what was stored below an empty folder until it is ended. Absent: it has no such thing, or another one. */
  mount?(at: string): Mount;
}

export interface Mount {
  readonly program: Program;
  /** Where the image is then. */
  readonly image: string;
}

export interface Restored {
  readonly measured: Measured;
  readonly image: string;
}

export const bothCompressions: readonly Compression[] = ['fastest', 'off'];
/** Of a repository that lives for one measurement. */
export const password = 'benchmark';
