import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { storageTargetContract } from '../contract/storage-target.ts';
import { type MemoryOutcome, MemoryStore, openMemoryTarget } from './memory-target.ts';

storageTargetContract({
  name: 'a store in memory',
  open: async ({ objectLock }) => openMemoryTarget(new MemoryStore({ objectLock })),
});

storageTargetContract({
  name: 'a store in memory that yields before each operation and lists in small pages',
  open: async ({ objectLock }) =>
    openMemoryTarget(
      new MemoryStore({ objectLock }),
      () => new Promise((resolve) => setImmediate(() => resolve({ kind: 'done' }))),
      3,
    ),
});

const never = new AbortController().signal;

async function putWith(outcome: MemoryOutcome): Promise<{ readonly code: unknown; readonly store: MemoryStore }> {
  const store = new MemoryStore();
  const target = openMemoryTarget(store, () => Promise.resolve(outcome));
  const bytes = Uint8Array.of(1);
  const code = await target
    .putIfAbsent('a', bytes, { sha256: createHash('sha256').update(bytes).digest() }, never)
    .then(
      () => 'resolved',
      (error: unknown) => (error as { code?: unknown }).code,
    );
  return { code, store };
}

describe('a put in a store that misbehaves', () => {
  it.each([
    ['done', 'resolved', ['a']],
    ['lost', 'STORE_UNAVAILABLE', []],
    ['unanswered', 'STORE_UNAVAILABLE', ['a']],
    ['repeated', 'OBJECT_EXISTS', ['a']],
  ] as const)('that is %s says %s', async (kind, code, names) => {
    const put = await putWith({ kind });
    expect([put.code, put.store.names]).toEqual([code, names]);
  });

  it('that is late is carried out after it was given up', async () => {
    const waiting: (() => void)[] = [];
    const { code, store } = await putWith({ kind: 'late', later: (carryOut) => waiting.push(carryOut) });
    expect([code, store.names]).toEqual(['STORE_UNAVAILABLE', []]);
    waiting[0]?.();
    expect(store.names).toEqual(['a']);
  });
});
