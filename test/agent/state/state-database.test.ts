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
