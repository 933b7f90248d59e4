import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { StateDiskFull } from '../../../agent/state/errors.ts';
import { StateDatabase } from '../../../agent/state/state-database.ts';

const sqliteFull = 13;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'failkit-database-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('a state that could not be opened is not locked', () => {
  const file = join(folder, 'state.sqlite');
  const { exec } = DatabaseSync.prototype;
  const spy = vi.spyOn(DatabaseSync.prototype, 'exec').mockImplementationOnce(function (this: DatabaseSync, sql) {
    Reflect.apply(exec, this, [sql]);
    throw Object.assign(new Error('database or disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: sqliteFull });
  });
  expect(() => new StateDatabase(file)).toThrow(StateDiskFull);
  spy.mockRestore();
  using database = new StateDatabase(file);
  expect(database.rows('SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

it.each(['transaction', 'quickTransaction'] as const)(
  "a %s that began, and was told that it had not, is in nobody's way",
  (kind) => {
    using database = new StateDatabase(join(folder, 'state.sqlite'));
    const { exec } = DatabaseSync.prototype;
    const spy = vi.spyOn(DatabaseSync.prototype, 'exec').mockImplementation(function (this: DatabaseSync, sql) {
      Reflect.apply(exec, this, [sql]);
      if (sql.startsWith('BEGIN'))
        throw Object.assign(new Error('disk full'), { code: 'ERR_SQLITE_ERROR', errcode: sqliteFull });
    });
    expect(() => database[kind](() => undefined)).toThrow(StateDiskFull);
    spy.mockRestore();
    database[kind](() => database.run("INSERT INTO facts VALUES ('a', x'01')"));
    expect(database.blob("SELECT value FROM facts WHERE name = 'a'")).toEqual(Uint8Array.of(1));
  },
);

it('what follows a quick transaction waits for the disk again, whether that succeeded or not', () => {
  using database = new StateDatabase(join(folder, 'state.sqlite'));
  const level = () => database.rows('PRAGMA synchronous')[0]?.synchronous;
  const [quick, full] = [1, 2];
  database.quickTransaction(() => expect(level()).toBe(quick));
  expect(level()).toBe(full);
  const failing = () =>
    database.quickTransaction(() => {
      throw new RangeError('not this');
    });
  expect(failing).toThrow(new RangeError('not this'));
  expect(level()).toBe(full);
});
