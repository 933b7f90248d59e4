import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ObjectExists, Unsupported } from '../../storage-targets/errors.ts';
import { probePutIfAbsent, probeRefusal } from '../../storage-targets/probe.ts';
import type { ListedObject, ListOptions, Pace, StorageTarget } from '../../storage-targets/storage-target.ts';

export interface StorageTargetSubject {
  readonly name: string;
  /** An empty target of its own. */
  open(options: { readonly objectLock: boolean }): Promise<StorageTarget>;
  /** What this store is known not to do; left out, it must do it. A test that needs it is skipped and says so. */
  readonly lacks?: {
    readonly atomicPuts?: true;
    readonly checksumCheck?: true;
    /** The store offers no object lock at all, and says Unsupported. */
    readonly objectLock?: true;
    /** A put with retention into a bucket without object lock is refused, and yet leaves the object. */
    readonly cleanRefusal?: true;
    /** Of several that lengthen a lock at once the last one holds, though it be shorter. */
    readonly longestLock?: true;
  };
  readonly manyObjects?: number;
}

const never = new AbortController().signal;
const MiB = 1024 * 1024;
const bytesOf = (text: string) => new TextEncoder().encode(text);
const sha256 = (bytes: Uint8Array) => new Uint8Array(createHash('sha256').update(bytes).digest());
const put = (target: StorageTarget, name: string, bytes: Uint8Array = bytesOf(name)) =>
  target.putIfAbsent(name, bytes, { sha256: sha256(bytes) }, never);

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function listed(target: StorageTarget, prefix: string, options: ListOptions = {}): Promise<ListedObject[]> {
  return await collect(target.list(prefix, options, never));
}

async function names(target: StorageTarget, prefix: string, options: ListOptions = {}): Promise<string[]> {
  return (await listed(target, prefix, options)).map(({ name }) => name);
}

async function code(doing: Promise<unknown>): Promise<unknown> {
  return await doing.then(
    () => 'resolved',
    (error: unknown) => (error as { code?: unknown }).code ?? error,
  );
}

/** Every promise of `storage-target.ts`. */
export function storageTargetContract(subject: StorageTargetSubject): void {
  describe(subject.name, () => {
    let target: StorageTarget;
    beforeAll(async () => {
      target = await subject.open({ objectLock: false });
    });
    afterAll(() => target?.[Symbol.asyncDispose]());

    describe('an object', () => reading(() => target));
    describe('put if absent', () => putting(() => target, subject));
    describe('list', () => listing(() => target, subject));
    describe('delete', () => deleting(() => target));
    describe('names', () => naming(() => target));
    describe('cancellation', () => cancelling(() => target));
    describe('a pace', () => pacing(() => target));
    describe('retention', () => retaining(subject));

    it("tells the store's time", async () => {
      const skewMs = Math.abs((await target.now(never)).getTime() - Date.now());
      expect(skewMs).toBeLessThan(5_000);
    });

    it('describes itself', () => {
      expect(target.description).not.toBe('');
    });
  });
}

function reading(target: () => StorageTarget): void {
  const whole = new Uint8Array(randomBytes(9 * MiB + 17));

  it('is read back whole and in ranges, byte for byte', async () => {
    await put(target(), 'read/whole', whole);
    expect(Buffer.compare(await target().get('read/whole', null, never), whole)).toBe(0);
    for (const [offset, length] of [
      [0, 1],
      [1, 4096],
      [MiB - 1, 2 * MiB],
      [whole.length - 1, 1],
      [0, whole.length],
    ] as const) {
      const part = await target().get('read/whole', { offset, length }, never);
      expect(Buffer.compare(part, whole.subarray(offset, offset + length))).toBe(0);
    }
  });

  it('comes in a buffer of its own, which may be handed to a worker', async () => {
    await put(target(), 'read/own', bytesOf('content'));
    for (const range of [null, { offset: 1, length: 3 }]) {
      const bytes = await target().get('read/own', range, never);
      expect(bytes.constructor).toBe(Uint8Array);
      expect(bytes.buffer.byteLength).toBe(bytes.length);
    }
  });

  it('comes where it is wanted, on shared memory too, and touches nothing around it', async () => {
    await put(target(), 'read/into', whole);
    const around = new Uint8Array(new SharedArrayBuffer(2 * MiB + 200)).fill(0xa5);
    const into = around.subarray(100, 2 * MiB + 100);
    expect(await target().get('read/into', { offset: 5, length: into.length }, never, { into })).toBe(into);
    expect(Buffer.compare(into, whole.subarray(5, 5 + into.length))).toBe(0);
    for (const edge of [around.subarray(0, 100), around.subarray(2 * MiB + 100)])
      expect(edge.every((byte) => byte === 0xa5)).toBe(true);
  });

  it('may be empty', async () => {
    await put(target(), 'read/empty', new Uint8Array(0));
    expect(await target().get('read/empty', null, never)).toEqual(new Uint8Array(0));
    expect((await target().head('read/empty', never)).bytes).toBe(0);
    expect(await code(target().get('read/empty', { offset: 0, length: 1 }, never))).toBe('RANGE_INVALID');
  });

  it('has a size, a time, and the checksum it was put with if the store keeps one', async () => {
    const bytes = bytesOf('to be looked at');
    await put(target(), 'read/head', bytes);
    const info = await target().head('read/head', never);
    expect(info).toMatchObject({ name: 'read/head', bytes: bytes.length });
    expect(Math.abs(info.modified.getTime() - Date.now())).toBeLessThan(60_000);
    if (info.sha256 !== null) expect(info.sha256).toEqual(sha256(bytes));
  });

  it('is never read short: a range that it ends before is refused', async () => {
    await put(target(), 'read/short', new Uint8Array(100));
    for (const [offset, length] of [
      [0, 101],
      [99, 2],
      [100, 1],
      [5_000, 10],
    ] as const) {
      expect(await code(target().get('read/short', { offset, length }, never))).toBe('RANGE_INVALID');
    }
  });

  it('that is missing is not found', async () => {
    expect(await code(target().get('read/missing', null, never))).toBe('OBJECT_NOT_FOUND');
    expect(await code(target().get('read/missing', { offset: 0, length: 1 }, never))).toBe('OBJECT_NOT_FOUND');
    expect(await code(target().head('read/missing', never))).toBe('OBJECT_NOT_FOUND');
  });
}

function putting(target: () => StorageTarget, { lacks }: StorageTargetSubject): void {
  it('refuses a taken name, with the same bytes too, and leaves what is there', async () => {
    await put(target(), 'put/taken', bytesOf('first'));
    await expect(put(target(), 'put/taken', bytesOf('second'))).rejects.toThrow(ObjectExists);
    await expect(put(target(), 'put/taken', bytesOf('first'))).rejects.toThrow(ObjectExists);
    expect(await target().get('put/taken', null, never)).toEqual(bytesOf('first'));
  });

  it.skipIf(lacks?.atomicPuts)('lets exactly one of many racing puts win (needs atomic puts)', async () => {
    for (let round = 0; round < 5; round++) {
      const bodies = Array.from({ length: 16 }, (_, racer) => bytesOf(`racer ${racer}`.repeat(1 + racer * 100)));
      const codes = await Promise.all(bodies.map((bytes) => code(put(target(), `put/race-${round}`, bytes))));
      const won = bodies.filter((_, racer) => codes[racer] === 'resolved');
      expect(won).toHaveLength(1);
      expect(
        codes.filter((each) => each !== 'resolved' && each !== 'OBJECT_EXISTS' && each !== 'STORE_CONFLICT'),
      ).toEqual([]);
      expect(await target().get(`put/race-${round}`, null, never)).toEqual(won[0]);
    }
  });

  it.skipIf(lacks?.atomicPuts)('passes the probe for atomic puts (needs atomic puts)', async () => {
    expect(await code(probePutIfAbsent(target(), never))).toBe('resolved');
  });

  it('passes the probe of each start, the first one and the later ones', async () => {
    expect(await code(probeRefusal(target(), 'probe/fixed', never))).toBe('resolved');
    const made = await target().get('probe/fixed', null, never);
    expect(await code(probeRefusal(target(), 'probe/fixed', never))).toBe('resolved');
    expect(await target().get('probe/fixed', null, never)).toEqual(made);
  });

  it.skipIf(lacks?.checksumCheck)(
    'refuses bytes that are not those of the checksum (needs a checksum check)',
    async () => {
      await put(target(), 'put/right');
      // What vouches for a large one may be another thing than for a small one.
      for (const bytes of [bytesOf('these'), new Uint8Array(2 * MiB).fill(1)]) {
        const doing = target().putIfAbsent('put/wrong', bytes, { sha256: sha256(bytesOf('those')) }, never);
        expect(await code(doing)).toBe('CHECKSUM_REFUSED');
        expect(await code(target().head('put/wrong', never))).toBe('OBJECT_NOT_FOUND');
      }
    },
  );

  it('puts many at once', async () => {
    const all = Array.from({ length: 40 }, (_, number) => `put/many/${number % 4}/${number}`);
    await Promise.all(all.map((name) => put(target(), name)));
    expect(await names(target(), 'put/many/')).toEqual(all.sort());
  });
}

/** In an order that no store may keep by accident: folders, and the characters around the slash. */
const tricky = [
  'a',
  'a-b',
  'a.b/c',
  'a_b',
  'aa/b',
  'ab',
  'b-/x',
  'b.',
  'b/-',
  'b/0',
  'b/x/y',
  'b/x-y',
  'b0',
  'z/1',
  'z/10',
  'z/2',
];

function listing(target: () => StorageTarget, { manyObjects = 1_100 }: StorageTargetSubject): void {
  const all = tricky.map((name) => `list/${name}`).sort();
  beforeAll(async () => {
    await Promise.all(all.map((name) => put(target(), name)));
  });

  it('is ascending by the whole name', async () => {
    expect(await names(target(), 'list/')).toEqual(all);
  });

  it('tells sizes and times', async () => {
    for (const { name, bytes, modified } of await listed(target(), 'list/')) {
      expect(bytes).toBe(name.length);
      expect(Math.abs(modified.getTime() - Date.now())).toBeLessThan(600_000);
    }
  });

  it('takes any prefix, ended by a slash or not', async () => {
    for (const prefix of [
      'list/a',
      'list/b',
      'list/b/',
      'list/b/x',
      'list/z/1',
      'list/nothing',
      'list/b/x/y',
      'list/a.b/c/',
    ]) {
      expect(await names(target(), prefix)).toEqual(all.filter((name) => name.startsWith(prefix)));
    }
    expect(await names(target(), '')).toEqual(expect.arrayContaining(all));
  });

  it('starts after any name, there or not, and stops at the limit', async () => {
    for (const startAfter of [...all, 'list/', 'list/b/x', 'list/b/x/', 'list/bz', 'list/zz', 'a', 'z']) {
      const rest = all.filter((name) => name > startAfter);
      expect(await names(target(), 'list/', { startAfter })).toEqual(rest);
      expect(await names(target(), 'list/', { startAfter, limit: 2 })).toEqual(rest.slice(0, 2));
    }
    for (const limit of [0, 1, 5, all.length, all.length + 5]) {
      expect(await names(target(), 'list/', { limit })).toEqual(all.slice(0, limit));
    }
  });

  it('goes on over more objects than a store gives at once', async () => {
    const many = Array.from({ length: manyObjects }, (_, number) => `many/${String(number).padStart(6, '0')}`);
    for (let first = 0; first < many.length; first += 32) {
      await Promise.all(many.slice(first, first + 32).map((name) => put(target(), name, bytesOf('x'))));
    }
    expect(await names(target(), 'many/')).toEqual(many);
    expect(await names(target(), 'many/', { limit: 1_001 })).toEqual(many.slice(0, 1_001));
  });

  it('sees what was put just before, and not what was deleted', async () => {
    await put(target(), 'fresh/1');
    expect(await names(target(), 'fresh/')).toEqual(['fresh/1']);
    await target().delete(['fresh/1'], never);
    expect(await names(target(), 'fresh/')).toEqual([]);
  });
}

function deleting(target: () => StorageTarget): void {
  it('removes what is named, nothing else, and does not mind what is missing', async () => {
    for (const name of ['delete/a', 'delete/ab', 'delete/b/c']) await put(target(), name);
    await target().delete(['delete/a', 'delete/b/c', 'delete/never-there'], never);
    expect(await names(target(), 'delete/')).toEqual(['delete/ab']);
    await target().delete(['delete/a'], never);
    await target().delete([], never);
    expect(await code(target().get('delete/a', null, never))).toBe('OBJECT_NOT_FOUND');
  });

  it('frees the name', async () => {
    await put(target(), 'delete/again', bytesOf('first'));
    await target().delete(['delete/again'], never);
    await put(target(), 'delete/again', bytesOf('second'));
    expect(await target().get('delete/again', null, never)).toEqual(bytesOf('second'));
  });
}

function naming(target: () => StorageTarget): void {
  it('take every allowed character and length', async () => {
    const parts = ['0', 'a.b', '-', '_', '...', '.hidden', 'x'.repeat(255)];
    const longest = `${parts.join('/')}/`.padEnd(512, 'y');
    await put(target(), longest);
    expect(await target().get(longest, null, never)).toEqual(bytesOf(longest));
    expect(await names(target(), '0/a.b/')).toEqual([longest]);
  });

  const bad = [
    '',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    '../a',
    'a/../b',
    'a/./b',
    'A',
    'a b',
    'ä',
    'a\\b',
    'a\0',
    'a~',
    'a\n',
    'x'.repeat(513),
    'x'.repeat(256),
  ];
  it.each(bad)('are refused when they are none: %j', async (name) => {
    expect(await code(put(target(), name, bytesOf('x')))).toBe('NAME_INVALID');
    expect(await code(target().get(name, null, never))).toBe('NAME_INVALID');
    expect(await code(target().head(name, never))).toBe('NAME_INVALID');
    expect(await code(target().delete(['fine', name], never))).toBe('NAME_INVALID');
  });

  it.each(['/', '../', 'a/../', 'A', 'a//b', '*'])('cannot begin like this: %j', async (prefix) => {
    expect(await code((async () => await names(target(), prefix))())).toBe('NAME_INVALID');
  });
}

function cancelling(target: () => StorageTarget): void {
  const operations: Readonly<Record<string, (signal: AbortSignal) => Promise<unknown>>> = {
    put: (signal) => target().putIfAbsent('cancel/put', bytesOf('x'), { sha256: sha256(bytesOf('x')) }, signal),
    get: (signal) => target().get('cancel/get', null, signal),
    head: (signal) => target().head('cancel/get', signal),
    list: (signal) => collect(target().list('cancel/', {}, signal)),
    delete: (signal) => target().delete(['cancel/get'], signal),
    now: (signal) => target().now(signal),
  };

  it.each(Object.keys(operations))('of %s rejects with the reason untouched', async (operation) => {
    await put(target(), `cancel/${operation}/there`);
    const reason = new Error('the operator said stop');
    const caught = await operations[operation]?.(AbortSignal.abort(reason)).catch((error: unknown) => error);
    expect(caught).toBe(reason);
    expect(await code(target().head('cancel/put', never))).toBe('OBJECT_NOT_FOUND');
  });

  it('in the middle of a put or a get leaves a whole object or none', async () => {
    const bytes = new Uint8Array(randomBytes(8 * MiB));
    for (const afterMs of [0, 1, 3, 10]) {
      const controller = new AbortController();
      const name = `cancel/middle-${afterMs}`;
      const putting = target().putIfAbsent(name, bytes, { sha256: sha256(bytes) }, controller.signal);
      setTimeout(() => controller.abort('enough'), afterMs);
      const outcome = await putting.then(
        () => 'resolved',
        (reason: unknown) => reason,
      );
      expect(['resolved', 'enough']).toContain(outcome);
      const found = await target()
        .get(name, null, never)
        .catch(() => null);
      if (outcome === 'resolved') expect(found).not.toBeNull();
      if (found !== null) expect(Buffer.compare(found, bytes)).toBe(0);
    }
  });
}

/** Grants pieces of an odd size, some at once and some later, until it has granted `stopAfter` bytes. */
function hesitant(signal: AbortSignal, stopAfter = Number.POSITIVE_INFINITY) {
  const seen = { granted: 0, stopped: Promise.withResolvers<void>() };
  const pace: Pace = (most) => {
    if (seen.granted >= stopAfter) {
      seen.stopped.resolve();
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    }
    const piece = Math.min(most, 100_003);
    seen.granted += piece;
    return seen.granted % 3 === 0 ? piece : new Promise((resolve) => setImmediate(() => resolve(piece)));
  };
  return { seen, pace };
}

function pacing(target: () => StorageTarget): void {
  const bytes = new Uint8Array(randomBytes(3 * MiB + 5));

  it('is asked for each byte of a put and a get, and the object is the same', async () => {
    const up = hesitant(never);
    await target().putIfAbsent('pace/whole', bytes, { sha256: sha256(bytes), pace: up.pace }, never);
    expect(up.seen.granted).toBe(bytes.length);
    for (const range of [null, { offset: 7, length: 2 * MiB }]) {
      const down = hesitant(never);
      const got = await target().get('pace/whole', range, never, { pace: down.pace });
      const wanted = range === null ? bytes : bytes.subarray(range.offset, range.offset + range.length);
      expect(Buffer.compare(got, wanted)).toBe(0);
      expect(down.seen.granted).toBe(got.length);
    }
  });

  it('holds back a put and a get, which can be cancelled meanwhile', async () => {
    await put(target(), 'pace/there', bytes);
    const controller = new AbortController();
    const { signal } = controller;
    const [up, down] = [hesitant(signal, MiB), hesitant(signal, MiB)];
    const into = new Uint8Array(bytes.length);
    const outcomes = [
      target().putIfAbsent('pace/held', bytes, { sha256: sha256(bytes), pace: up.pace }, signal),
      target().get('pace/there', { offset: 0, length: bytes.length }, signal, { pace: down.pace, into }),
    ].map((doing) => doing.catch((reason: unknown) => reason));
    await Promise.all([up.seen.stopped.promise, down.seen.stopped.promise]);
    // Some stores answer whoever looks only when nobody puts any more: what was asked now is heard later.
    const meanwhile = code(target().head('pace/held', never));
    controller.abort('enough');
    expect(await Promise.all(outcomes)).toEqual(['enough', 'enough']);
    into.fill(0xa5);
    expect(await meanwhile).toBe('OBJECT_NOT_FOUND');
    expect(up.seen.granted).toBeLessThan(2 * MiB);
    expect(down.seen.granted).toBeLessThan(2 * MiB);
    expect(await code(target().head('pace/held', never))).toBe('OBJECT_NOT_FOUND');
    await put(target(), 'pace/held', bytes);
    // The memory is the caller's own again, from the moment the get was given up.
    expect(into.every((byte) => byte === 0xa5)).toBe(true);
  });
}

/** What the whole contract says of object lock, for a store that is known but for that. */
export function retentionContract(subject: StorageTargetSubject): void {
  describe(subject.name, () => retaining(subject));
}

function retaining(subject: StorageTargetSubject): void {
  const soon = () => new Date(Math.ceil(Date.now() / 1000) * 1000 + 60 * 60 * 1000);
  const later = () => new Date(soon().getTime() + 60 * 60 * 1000);

  it('is Unsupported where the store has no object lock', async () => {
    await using target = await subject.open({ objectLock: false });
    const bytes = bytesOf('x');
    const doing = target.putIfAbsent('retain/none', bytes, { sha256: sha256(bytes), retainUntil: soon() }, never);
    await expect(doing).rejects.toThrow(Unsupported);
    if (!subject.lacks?.cleanRefusal) {
      expect(await code(target.head('retain/none', never))).toBe('OBJECT_NOT_FOUND');
    }
    await put(target, 'retain/plain', bytes);
    await expect(target.extendRetention('retain/plain', soon(), never)).rejects.toThrow(Unsupported);
  });

  it.skipIf(subject.lacks?.objectLock)('keeps an object from deletion (needs object lock)', async () => {
    await using target = await subject.open({ objectLock: true });
    const bytes = bytesOf('locked');
    await target.putIfAbsent('retain/put', bytes, { sha256: sha256(bytes), retainUntil: soon() }, never);
    await put(target, 'retain/free');
    await put(target, 'retain/extended', bytes);
    await target.extendRetention('retain/extended', soon(), never);
    for (const name of ['retain/put', 'retain/extended']) {
      expect(await code(target.delete([name, 'retain/free'], never))).toBe('IMMUTABLE');
      expect(await target.get(name, null, never)).toEqual(bytes);
    }
    expect(await code(target.get('retain/free', null, never))).toBe('OBJECT_NOT_FOUND');
  });

  it.skipIf(subject.lacks?.objectLock)('is only ever lengthened (needs object lock)', async () => {
    await using target = await subject.open({ objectLock: true });
    const bytes = bytesOf('locked');
    await target.putIfAbsent('retain/longer', bytes, { sha256: sha256(bytes), retainUntil: soon() }, never);
    await target.extendRetention('retain/longer', later(), never);
    await target.extendRetention('retain/longer', new Date(Date.now() + 60_000), never);
    const refused = await target.delete(['retain/longer'], never).catch((error: unknown) => error);
    expect((refused as Error).message).toContain(later().toISOString().slice(0, 13));
    // Hosts that share an object lengthen its lock at the same time: the longest holds, and none of them is refused.
    const hours = [4, 9, 3, 8, 5, 7, 6].map((hour) => new Date(soon().getTime() + hour * 3_600_000));
    await Promise.all(hours.map((until) => target.extendRetention('retain/longer', until, never)));
    const longest = new Date(Math.max(...hours.map((until) => until.getTime())));
    const again = await target.delete(['retain/longer'], never).catch((error: unknown) => error);
    const held = subject.lacks?.longestLock ? /locked until/ : longest.toISOString().slice(0, 13);
    expect((again as Error).message).toMatch(held);
    await expect(target.extendRetention('retain/missing', later(), never)).rejects.toThrow(
      expect.objectContaining({ code: 'OBJECT_NOT_FOUND' }),
    );
  });
}
