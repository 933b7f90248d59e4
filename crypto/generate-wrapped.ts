import { DataKey } from './data-key.ts';
import type { KeyProvider, WrappedKey } from './key-provider.ts';

/** A data key made here, for key services that make none. It is gone where it can't be wrapped. */
export async function generateWrapped(
  wrap: (key: DataKey) => WrappedKey | Promise<WrappedKey>,
  signal: AbortSignal,
): ReturnType<KeyProvider['generateDataKey']> {
  signal.throwIfAborted();
  const key = DataKey.generate();
  try {
    return { key, wrapped: await wrap(key) };
  } catch (error) {
    key[Symbol.dispose]();
    throw error;
  }
}
