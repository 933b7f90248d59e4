/** A target whose answers go wrong on purpose: the store behind it is real, only what the caller hears is not. */
import type { ListedObject, StorageTarget } from '../../storage-targets/storage-target.ts';

/** `refuse`: nothing happens in the store. `lose`: it happens, but the caller hears the error instead. */
export interface Fault {
  readonly how: 'refuse' | 'lose';
  readonly error: Error;
}

/** Called with the operation and how often that was called before; null lets it pass. */
export type Faults = (operation: 'put' | 'get' | 'list', before: number) => Fault | null;

export function withFaults(target: StorageTarget, faults: Faults): StorageTarget {
  const calls = { put: 0, get: 0, list: 0 };
  const faulty = async <T>(operation: 'put' | 'get', work: () => Promise<T>): Promise<T> => {
    const fault = faults(operation, calls[operation]++);
    if (fault?.how === 'refuse') throw fault.error;
    const result = await work();
    if (fault?.how === 'lose') throw fault.error;
    return result;
  };
  return {
    description: target.description,
    putIfAbsent: (name, bytes, options, signal) =>
      faulty('put', () => target.putIfAbsent(name, bytes, options, signal)),
    get: (name, range, signal, options) => faulty('get', () => target.get(name, range, signal, options)),
    head: (name, signal) => target.head(name, signal),
    /** A listing breaks after its second object. */
    async *list(prefix, options, signal): AsyncGenerator<ListedObject> {
      const fault = faults('list', calls.list++);
      let seen = 0;
      for await (const object of target.list(prefix, options, signal)) {
        if (fault !== null && seen++ === 2) throw fault.error;
        yield object;
      }
    },
    delete: (names, signal) => target.delete(names, signal),
    extendRetention: (name, until, signal) => target.extendRetention(name, until, signal),
    now: (signal) => target.now(signal),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}
