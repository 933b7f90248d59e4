/**
 * Loaded into a failkit process by `--import`: counts the calls that change files or the state database, and lets one of them
 * go wrong. What, is in the environment variable FAILKIT_INJECT.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { DatabaseSync, StatementSync } from 'node:sqlite';
import { isMainThread } from 'node:worker_threads';
import type { Injection } from './injection.ts';

const injection: Injection = JSON.parse(process.env.FAILKIT_INJECT ?? '{}');
let counted = 0;
let isCounting = false;

/** Calls on FileHandle objects and the promise API; each of them changes something. */
const changing = [
  'mkdir',
  'link',
  'unlink',
  'rename',
  'rm',
  'writeFile',
  'chmod',
  'truncate',
  'sync',
  'datasync',
  'write',
];
const changingSync = [
  'mkdirSync',
  'linkSync',
  'unlinkSync',
  'renameSync',
  'rmSync',
  'writeFileSync',
  'chmodSync',
  'fsyncSync',
  'writeSync',
];
const writeFlags = fs.constants.O_WRONLY | fs.constants.O_RDWR | fs.constants.O_CREAT;

const sqliteErrors = { EIO: 10, ENOSPC: 13 };

type Call = (...values: unknown[]) => unknown;

/** Counts the call: its number, or 0 when it does not count. */
function count(call: string, values: readonly unknown[]): number {
  const text = [call, ...values.filter((value) => typeof value === 'string')].join(' ');
  if (injection.from === undefined || text.includes(injection.from)) isCounting = true;
  if (!isCounting || !text.includes(injection.match ?? '')) return 0;
  counted++;
  return counted;
}

function act(call: string, number: number, moment: 'before' | 'after'): void {
  if (number === 0 || number !== injection.at || moment !== injection.moment) return;
  if (injection.signal !== undefined) {
    fs.writeSync(2, `injected ${injection.signal} ${moment} ${call}\n`);
    process.kill(process.pid, injection.signal);
    // The signal may take a moment to arrive, and nothing may happen in it.
    if (injection.signal === 'SIGKILL') for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  }
  if (injection.errno === undefined) return;
  const error = new Error(`${injection.errno}: injected, ${call}`);
  if (call.startsWith('state '))
    throw Object.assign(error, { code: 'ERR_SQLITE_ERROR', errcode: sqliteErrors[injection.errno] });
  throw Object.assign(error, { code: injection.errno, syscall: call });
}

function wrap(owner: object, name: string, mode: 'promise' | 'sync', label = name): void {
  const original = Reflect.get(owner, name) as Call;
  const wrapped =
    mode === 'sync'
      ? function (this: unknown, ...values: unknown[]): unknown {
          const number = count(label, values);
          act(label, number, 'before');
          const result = Reflect.apply(original, this, values);
          act(label, number, 'after');
          return result;
        }
      : async function (this: unknown, ...values: unknown[]): Promise<unknown> {
          const number = count(label, values);
          act(label, number, 'before');
          const result = await (Reflect.apply(original, this, values) as Promise<unknown>);
          act(label, number, 'after');
          return result;
        };
  Reflect.set(owner, name, wrapped);
}

function wrapOpen(owner: object, name: string): void {
  const original = Reflect.get(owner, name) as Call;
  const opensForWriting = (flags: unknown): boolean =>
    typeof flags === 'number' ? (flags & writeFlags) !== 0 : typeof flags === 'string' && flags !== 'r';
  Reflect.set(owner, name, (...values: unknown[]): unknown => {
    if (!opensForWriting(values[1])) return original(...values);
    const number = count(name, values);
    act(name, number, 'before');
    const opened = original(...values);
    if (!(opened instanceof Promise)) {
      act(name, number, 'after');
      return opened;
    }
    return opened.then((handle: unknown) => {
      act(name, number, 'after');
      return handle;
    });
  });
}

async function wrapFileHandle(): Promise<void> {
  const handle = await fs.promises.open(import.meta.filename, 'r');
  const prototype: object = Object.getPrototypeOf(handle);
  await handle.close();
  for (const name of changing) if (name in prototype) wrap(prototype, name, 'promise', `handle.${name}`);
}

/** Threads write what they restore. A signal ends the process from there, too; each thread counts for itself. */
if (!isMainThread && injection.match === 'writeSync') {
  wrap(fs, 'writeSync', 'sync');
  syncBuiltinESMExports();
}

if (isMainThread && process.env.FAILKIT_INJECT !== undefined) {
  const writeFileSync = fs.writeFileSync;
  await wrapFileHandle();
  for (const name of changing) if (name in fs.promises) wrap(fs.promises, name, 'promise');
  for (const name of changingSync) wrap(fs, name, 'sync');
  wrapOpen(fs.promises, 'open');
  wrapOpen(fs, 'openSync');
  syncBuiltinESMExports();
  wrap(DatabaseSync.prototype, 'exec', 'sync', 'state exec');
  wrap(DatabaseSync.prototype, 'close', 'sync', 'state close');
  wrap(StatementSync.prototype, 'run', 'sync', 'state run');
  const { countTo } = injection;
  if (countTo !== undefined) process.on('exit', () => writeFileSync(countTo, String(counted)));
}
