import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A file system that keeps after a power loss what it has to keep, and little else. */

/**
 * What is left of that which nobody synced. `dropped`: nothing, neither names nor bytes. `names`: names, no bytes. `torn`: names
 * and bytes, and of each file's last write the first half. `last`: names, and of each file only the last write.
 */
export const losses = ['dropped', 'names', 'torn', 'last'] as const;
export type Loss = (typeof losses)[number];

interface Change {
  /** A cut of the file to this length, or a write there. */
  readonly offset: number;
  readonly bytes: Uint8Array | null;
}

export class LossyFile {
  #synced: Uint8Array;
  #changes: Change[] = [];

  constructor(content: Uint8Array = new Uint8Array()) {
    this.#synced = content;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#changes.push({ offset, bytes });
  }

  truncate(length: number): void {
    this.#changes.push({ offset: length, bytes: null });
  }

  /** Changes so far; given to `sync` when the call ends that was begun now. */
  get changes(): number {
    return this.#changes.length;
  }

  sync(changes: number): void {
    this.#synced = this.#changes.slice(0, changes).reduce(applyChange, this.#synced);
    this.#changes = this.#changes.slice(changes);
  }

  get length(): number {
    return this.#changes.reduce(applyChange, this.#synced).length;
  }

  after(loss: Loss): Uint8Array {
    const last = this.#changes.at(-1);
    if (loss === 'dropped' || loss === 'names' || last === undefined) return this.#synced;
    const torn = last.bytes === null ? last : { ...last, bytes: last.bytes.subarray(0, last.bytes.length / 2) };
    const kept = loss === 'last' ? [last] : [...this.#changes.slice(0, -1), torn];
    return kept.reduce(applyChange, this.#synced);
  }
}

function applyChange(content: Uint8Array, { offset, bytes }: Change): Uint8Array {
  const length = bytes === null ? offset : Math.max(content.length, offset + bytes.length);
  const changed = new Uint8Array(length);
  changed.set(content.subarray(0, length));
  if (bytes !== null) changed.set(bytes, offset);
  return changed;
}

export class LossyFolder {
  readonly entries = new Map<string, LossyFile | LossyFolder>();
  #synced: ReadonlyMap<string, LossyFile | LossyFolder> = new Map();

  sync(entries: ReadonlyMap<string, LossyFile | LossyFolder>): void {
    this.#synced = new Map(entries);
  }

  after(loss: Loss): ReadonlyMap<string, LossyFile | LossyFolder> {
    return loss === 'dropped' ? this.#synced : this.entries;
  }
}

/** Everything that is left, by path. Folders end in a slash. */
export function* remains(folder: LossyFolder, loss: Loss, path = ''): Generator<readonly [string, Uint8Array | null]> {
  for (const [name, entry] of folder.after(loss)) {
    if (entry instanceof LossyFile) yield [path + name, entry.after(loss)];
    else {
      yield [`${path}${name}/`, null];
      yield* remains(entry, loss, `${path}${name}/`);
    }
  }
}

export function writeRemains(folder: LossyFolder, loss: Loss, to: string): void {
  for (const [path, bytes] of remains(folder, loss)) {
    if (bytes === null) mkdirSync(join(to, path), { mode: 0o700 });
    else writeFileSync(join(to, path), bytes, { mode: 0o600 });
  }
}

const digests = new WeakMap<Uint8Array, string>();

/** SHA-256, remembered: most files stay as they are from one moment to the next. */
export function digestOf(bytes: Uint8Array): string {
  const digest = digests.get(bytes) ?? createHash('sha256').update(bytes).digest('hex');
  digests.set(bytes, digest);
  return digest;
}

/** Equal for equal remains. */
export function digestOfRemains(folder: LossyFolder, loss: Loss): string {
  const hash = createHash('sha256');
  for (const [path, bytes] of remains(folder, loss)) {
    hash.update(`${path} ${bytes === null ? '' : digestOf(bytes)}\n`);
  }
  return hash.digest('hex');
}
