import { createHash } from 'node:crypto';
import {
  ChecksumRefused,
  Immutable,
  ObjectExists,
  ObjectNotFound,
  RangeInvalid,
  StoreUnavailable,
  Unsupported,
} from '../../storage-targets/errors.ts';
import { checkListPrefix, checkObjectName } from '../../storage-targets/object-name.ts';
import {
  type ByteRange,
  type ListedObject,
  type ListOptions,
  type ObjectInfo,
  type Pace,
  type PutOptions,
  type StorageTarget,
  wholeObjectBytesMax,
} from '../../storage-targets/storage-target.ts';

/** A store in memory. Any number of targets, one for each actor of a test, look at the same store. */

export interface MemoryOperation {
  readonly kind: 'put' | 'get' | 'head' | 'list' | 'delete' | 'extendRetention' | 'now';
  readonly name: string;
}

/**
 * What becomes of an operation. `lost`: never carried out, no answer. `unanswered`: carried out, no answer. `repeated`: carried
 * out twice by the client library, so that a put meets itself. `late`: no answer, and carried out when `carryOut` is called.
 */
export type MemoryOutcome =
  | { readonly kind: 'done' | 'lost' | 'unanswered' | 'repeated' }
  | { readonly kind: 'late'; readonly later: (carryOut: () => void | Promise<void>) => void };

/** Awaited before each operation (for a listing: before each page): the place where a test interleaves and breaks things. */
export type MemoryGate = (operation: MemoryOperation) => Promise<MemoryOutcome>;

export interface MemoryWatch {
  put(name: string, bytes: Uint8Array): void;
  deleted(name: string, bytes: Uint8Array): void;
}

interface StoredObject {
  readonly bytes: Uint8Array;
  readonly sha256: Uint8Array;
  readonly modified: Date;
  retainUntil: Date | null;
}

const done: MemoryOutcome = { kind: 'done' };

export class MemoryStore {
  readonly objectLock: boolean;
  readonly #objects = new Map<string, StoredObject>();
  readonly #watch: MemoryWatch | null;
  /** Ascending. */
  readonly #names: string[] = [];

  /** The store's clock, in milliseconds since 1970. */
  now: () => number = Date.now;

  constructor(options: { readonly objectLock?: boolean; readonly watch?: MemoryWatch } = {}) {
    this.objectLock = options.objectLock ?? false;
    this.#watch = options.watch ?? null;
  }

  /** Ascending. */
  get names(): readonly string[] {
    return this.#names;
  }

  bytesOf(name: string): Uint8Array | null {
    return this.#objects.get(name)?.bytes ?? null;
  }

  read(name: string): StoredObject {
    const object = this.#objects.get(name);
    if (object === undefined) throw new ObjectNotFound(`memory: ${name} does not exist`);
    return object;
  }

  put(name: string, bytes: Uint8Array, sha256: Uint8Array, retainUntil: Date | null): void {
    if (retainUntil !== null && !this.objectLock) throw noObjectLock();
    if (!createHash('sha256').update(bytes).digest().equals(sha256)) {
      throw new ChecksumRefused(`memory: ${name} did not arrive as it was sent`);
    }
    if (this.#objects.has(name)) throw new ObjectExists(`memory: ${name} exists`);
    this.#objects.set(name, { bytes, sha256: sha256.slice(), modified: new Date(this.now()), retainUntil });
    this.#names.splice(firstAtOrAfter(this.#names, name), 0, name);
    this.#watch?.put(name, bytes);
  }

  delete(name: string): void {
    const object = this.#objects.get(name);
    if (object === undefined) return;
    if (object.retainUntil !== null && object.retainUntil.getTime() > this.now()) {
      throw new Immutable(`memory: ${name} is locked until ${object.retainUntil.toISOString()}`);
    }
    this.#remove(name);
    this.#watch?.deleted(name, object.bytes);
  }

  /** What no target can do: an adversary with the bucket's own keys. */
  replace(name: string, bytes: Uint8Array | null): void {
    this.#remove(name);
    const sha256 = createHash('sha256')
      .update(bytes ?? new Uint8Array(0))
      .digest();
    if (bytes !== null) this.put(name, bytes, sha256, null);
  }

  copy(): MemoryStore {
    const store = new MemoryStore({ objectLock: this.objectLock });
    store.now = this.now;
    for (const [name, object] of this.#objects) store.#objects.set(name, { ...object });
    store.#names.push(...this.#names);
    return store;
  }

  #remove(name: string): void {
    if (this.#objects.delete(name)) this.#names.splice(firstAtOrAfter(this.#names, name), 1);
  }
}

export function openMemoryTarget(
  store: MemoryStore,
  gate: MemoryGate = () => Promise.resolve(done),
  pageObjects = 1_000,
): StorageTarget {
  return {
    description: 'memory',
    async putIfAbsent(name, bytes, options, signal) {
      checkObjectName(name);
      signal.throwIfAborted();
      const copy = bytes.slice();
      const outcome = await gate({ kind: 'put', name });
      await granted(copy.length, options.pace);
      signal.throwIfAborted();
      carryOutPut(store, name, copy, options, outcome);
    },
    async get(name, range, signal, { pace, into } = {}) {
      checkObjectName(name);
      await pass(gate, { kind: 'get', name }, signal);
      const bytes = cut(name, store.read(name).bytes, range);
      await granted(bytes.length, pace);
      into?.set(bytes);
      return into ?? bytes;
    },
    async head(name, signal) {
      checkObjectName(name);
      await pass(gate, { kind: 'head', name }, signal);
      return infoOf(name, store.read(name));
    },
    list(prefix, options, signal) {
      checkListPrefix(prefix);
      return listObjects(store, gate, pageObjects, prefix, options, signal);
    },
    async delete(names, signal) {
      for (const name of names) checkObjectName(name);
      signal.throwIfAborted();
      const outcome = await gate({ kind: 'delete', name: names.join(' ') });
      signal.throwIfAborted();
      answer(outcome, () => deleteAll(store, names));
    },
    async extendRetention(name, until, signal) {
      checkObjectName(name);
      await pass(gate, { kind: 'extendRetention', name }, signal);
      if (!store.objectLock) throw noObjectLock();
      const object = store.read(name);
      if (object.retainUntil === null || object.retainUntil < until) object.retainUntil = until;
    },
    async now(signal) {
      await pass(gate, { kind: 'now', name: '' }, signal);
      return new Date(store.now());
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function carryOutPut(
  store: MemoryStore,
  name: string,
  bytes: Uint8Array,
  { sha256, retainUntil }: PutOptions,
  outcome: MemoryOutcome,
): void {
  const put = (): void => store.put(name, bytes, sha256, retainUntil ?? null);
  answer(outcome, put);
  if (outcome.kind === 'repeated') put();
}

/** Carries `work` out now, later or never, and throws when the answer is lost. */
function answer(outcome: MemoryOutcome, work: () => void): void {
  if (outcome.kind === 'late') outcome.later(() => ignoreRefusal(work));
  else if (outcome.kind === 'unanswered') ignoreRefusal(work);
  else if (outcome.kind !== 'lost') {
    work();
    return;
  }
  throw new StoreUnavailable('memory: no answer');
}

function ignoreRefusal(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof ObjectExists || error instanceof Immutable)) throw error;
  }
}

async function pass(gate: MemoryGate, operation: MemoryOperation, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const outcome = await gate(operation);
  signal.throwIfAborted();
  if (outcome.kind !== 'done') throw new StoreUnavailable('memory: no answer');
}

async function granted(bytes: number, pace: Pace | undefined): Promise<void> {
  for (let left = bytes; left > 0 && pace !== undefined; ) left -= await pace(left);
}

function cut(name: string, bytes: Uint8Array, range: ByteRange | null): Uint8Array {
  const { offset, length } = range ?? { offset: 0, length: bytes.length };
  if (offset + length > bytes.length || length > wholeObjectBytesMax) {
    throw new RangeInvalid(`memory: ${name} has ${bytes.length} bytes, not ${length} from ${offset}`);
  }
  return bytes.slice(offset, offset + length);
}

async function* listObjects(
  store: MemoryStore,
  gate: MemoryGate,
  pageObjects: number,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncIterable<ListedObject> {
  const limit = options.limit ?? Number.POSITIVE_INFINITY;
  let after = options.startAfter ?? '';
  for (let given = 0; given < limit; ) {
    await pass(gate, { kind: 'list', name: prefix }, signal);
    const names = pageAfter(store.names, prefix, after, Math.min(pageObjects, limit - given));
    // The whole page is looked at now: an object may go while the caller walks.
    const page = names.map((name) => listedOf(name, store.read(name)));
    for (const object of page) yield object;
    given += page.length;
    after = names.at(-1) ?? after;
    if (page.length < pageObjects) return;
  }
}

function pageAfter(names: readonly string[], prefix: string, after: string, count: number): readonly string[] {
  const page: string[] = [];
  for (let at = firstAtOrAfter(names, prefix > after ? prefix : after); page.length < count; at++) {
    const name = names[at];
    if (name === undefined || (name > prefix && !name.startsWith(prefix))) break;
    if (name > after && name.startsWith(prefix)) page.push(name);
  }
  return page;
}

/** Index of the first name that is not less, in ascending names. */
function firstAtOrAfter(names: readonly string[], name: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((names[middle] ?? '') < name) low = middle + 1;
    else high = middle;
  }
  return low;
}

function listedOf(name: string, object: StoredObject): ListedObject {
  return { name, bytes: object.bytes.length, modified: object.modified };
}

function infoOf(name: string, object: StoredObject): ObjectInfo {
  return { ...listedOf(name, object), sha256: object.sha256.slice() };
}

/** Tries them all, as stores do, and then reports what could not go. */
function deleteAll(store: MemoryStore, names: readonly string[]): void {
  let refused: unknown = null;
  for (const name of names) {
    try {
      store.delete(name);
    } catch (error) {
      refused ??= error;
    }
  }
  if (refused !== null) throw refused;
}

function noObjectLock(): Unsupported {
  return new Unsupported('memory: this store has no object lock');
}
