import type { RandomAccessFile } from './random-access-file.ts';

/** One file of a chain: an image, or what was laid over it. */
export interface ImageLayer {
  /** As it is read: with its log replayed, where it has one. */
  readonly file: RandomAccessFile;
  readonly capacityBytes: number;
  readonly sectorBytes: number;
  /** Who the disk is, wherever it lies; null where the format does not say. */
  readonly diskIdentity: string | null;
  /** What a child may know it by, and what it knows its own parent by; null: it stands for itself. */
  readonly identifiers: ReadonlySet<string>;
  readonly parent: ParentReference | null;
  /** The run that begins at `offset`, at most to `end`, which is inside the capacity; the next one may go on with the same meaning. */
  runAt(offset: number, end: number, signal: AbortSignal): Promise<LayerRun>;
}

export interface LayerRun {
  readonly length: number;
  /** Of `data`: where in the file. `parent`: the layer holds nothing of its own there. */
  readonly kind: 'data' | 'zero' | 'parent';
  readonly at: number;
}

export interface ParentReference {
  readonly identifiers: ReadonlySet<string>;
  /** Where it may lie, as Windows writes paths, most likely first. */
  readonly paths: readonly ParentPath[];
}

export interface ParentPath {
  /** To the child's folder. */
  readonly relative: boolean;
  readonly path: string;
}
