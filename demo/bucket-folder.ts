import { chmodSync, closeSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** The bucket as its owner, or a thief, sees it: a folder of files. */

export interface StoredObject {
  /** Relative to the bucket, with slashes. */
  readonly name: string;
  readonly bytes: number;
}

/** Everything that lies there, unfinished uploads of a killed process included. */
export function objectsOf(bucket: string): readonly StoredObject[] {
  return list(bucket, () => true);
}

/** Segments, also while an agent writes. */
export function segmentsOf(bucket: string): readonly StoredObject[] {
  return list(bucket, (name) => /^machines\/[0-9a-f]{32}\/segments\/\d{16}\/\d{10}$/.test(name));
}

function list(bucket: string, wanted: (name: string) => boolean): readonly StoredObject[] {
  return readdirSync(bucket, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(bucket.length + 1))
    .filter(wanted)
    .sort()
    .map((name) => ({ name, bytes: statSync(join(bucket, name)).size }));
}

export interface Flipped {
  readonly at: number;
  readonly before: number;
  readonly after: number;
}

/** One bit of one byte in the middle, as a failing disk or a malicious hand would. */
export function flipBit(bucket: string, { name, bytes }: StoredObject): Flipped {
  const path = join(bucket, name);
  const at = Math.floor(bytes / 2);
  const { mode } = statSync(path);
  chmodSync(path, 0o600);
  const descriptor = openSync(path, 'r+');
  try {
    const byte = new Uint8Array(1);
    readSync(descriptor, byte, 0, 1, at);
    const before = byte[0] ?? 0;
    const after = before ^ 1;
    writeSync(descriptor, Uint8Array.of(after), 0, 1, at);
    return { at, before, after };
  } finally {
    closeSync(descriptor);
    chmodSync(path, mode & 0o777);
  }
}
