import { DatabaseSync, StatementSync } from 'node:sqlite';
import { vi } from 'vitest';
import { KeyServiceUnavailable } from '../../crypto/errors.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { SourceUnreadable } from '../../hypervisors/errors.ts';
import { OutputUnusable } from '../../restore/sinks/raw-sink.ts';
import type { RestoreSink } from '../../restore/sinks/sink.ts';
import { StoreUnavailable } from '../../storage-targets/errors.ts';
import type { ListedObject, StorageTarget } from '../../storage-targets/storage-target.ts';
import type { SourceGate } from '../fakes/model-disk.ts';
import type { FaultPlan } from './fault-plan.ts';

/** Everything that a run reaches the world through, with each call under a fault plan. */

const sqliteIoError = 10;

export function faultyTarget(target: StorageTarget, plan: FaultPlan): StorageTarget {
  const around = <T>(call: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> =>
    plan.around(call, () => new StoreUnavailable(`${call}: no answer (on purpose)`), signal, work);
  return {
    description: target.description,
    putIfAbsent: (name, bytes, options, signal) =>
      around(`put ${name}`, signal, () => target.putIfAbsent(name, bytes, options, signal)),
    get: (name, range, signal, options) =>
      around(`get ${name}`, signal, () => target.get(name, range, signal, options)),
    head: (name, signal) => around(`head ${name}`, signal, () => target.head(name, signal)),
    async *list(prefix, options, signal): AsyncGenerator<ListedObject> {
      await around(`list ${prefix}`, signal, async () => undefined);
      yield* target.list(prefix, options, signal);
    },
    delete: (names, signal) => around('delete', signal, () => target.delete(names, signal)),
    extendRetention: (name, until, signal) =>
      around(`retain ${name}`, signal, () => target.extendRetention(name, until, signal)),
    now: (signal) => around('now', signal, () => target.now(signal)),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}

export function faultyProvider(provider: KeyProvider, plan: FaultPlan): KeyProvider {
  const around = <T>(call: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> =>
    plan.around(call, () => new KeyServiceUnavailable(`${call}: no answer (on purpose)`), signal, work);
  return {
    provider: provider.provider,
    keyId: provider.keyId,
    generateDataKey: (context, signal) =>
      around('kms generate', signal, () => provider.generateDataKey(context, signal)),
    wrap: (key, context, signal) => around('kms wrap', signal, () => provider.wrap(key, context, signal)),
    unwrap: (wrapped, context, signal) => around('kms unwrap', signal, () => provider.unwrap(wrapped, context, signal)),
  };
}

export function faultyGate(plan: FaultPlan): SourceGate {
  return (call, signal) =>
    plan.around(
      `source ${call}`,
      () => new SourceUnreadable(`${call}: no answer (on purpose)`),
      signal,
      async () => undefined,
    );
}

export function faultySink(sink: RestoreSink, plan: FaultPlan): RestoreSink {
  const around = <T>(call: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> =>
    plan.around(call, () => new OutputUnusable(`${call}: failed (on purpose)`), signal, work);
  return {
    description: sink.description,
    startsZeroed: sink.startsZeroed,
    mayHoldContent: sink.mayHoldContent,
    direct: null,
    write: (offset, bytes, signal) => around('sink write', signal, () => sink.write(offset, bytes, signal)),
    read: (offset, into, signal) => around('sink read', signal, () => sink.read(offset, into, signal)),
    complete: (signal) => around('sink complete', signal, () => sink.complete(signal)),
    [Symbol.asyncDispose]: () => sink[Symbol.asyncDispose](),
  };
}

/** Puts every statement of every state database under the plan, until it is disposed. */
export function faultyState(plan: FaultPlan): Disposable {
  const failure = (): Error =>
    Object.assign(new Error('disk I/O error (on purpose)'), { code: 'ERR_SQLITE_ERROR', errcode: sqliteIoError });
  const { run, get, all } = StatementSync.prototype;
  const { exec } = DatabaseSync.prototype;
  const spies = [
    vi.spyOn(StatementSync.prototype, 'run').mockImplementation(function (this: StatementSync, ...values) {
      return plan.aroundSync('state run', failure, () => Reflect.apply(run, this, values));
    }),
    vi.spyOn(StatementSync.prototype, 'get').mockImplementation(function (this: StatementSync, ...values) {
      return plan.aroundSync('state get', failure, () => Reflect.apply(get, this, values));
    }),
    vi.spyOn(StatementSync.prototype, 'all').mockImplementation(function (this: StatementSync, ...values) {
      return plan.aroundSync('state all', failure, () => Reflect.apply(all, this, values));
    }),
    vi.spyOn(DatabaseSync.prototype, 'exec').mockImplementation(function (this: DatabaseSync, sql) {
      return plan.aroundSync(`state ${sql.slice(0, 20)}`, failure, () => Reflect.apply(exec, this, [sql]));
    }),
  ];
  return {
    [Symbol.dispose]: () => {
      for (const spy of spies) spy.mockRestore();
    },
  };
}
