import { createHash, randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';

/** What a test of errors sees of one. */
export interface Caught {
  readonly code: string;
  readonly message: string;
  readonly shown: string;
}

export const never = new AbortController().signal;

export function put(target: StorageTarget, name: string, bytes = new Uint8Array(randomBytes(100))): Promise<void> {
  const sha256 = new Uint8Array(createHash('sha256').update(bytes).digest());
  return target.putIfAbsent(name, bytes, { sha256 }, never);
}

export async function caught(doing: Promise<unknown>): Promise<Caught> {
  const error = await doing.then(
    () => new Error('nothing was thrown'),
    (reason: unknown) => reason as Error & { code?: string },
  );
  return {
    code: 'code' in error ? `${error.code}` : 'none',
    message: error.message,
    shown: inspect(error, { depth: 9 }),
  };
}
