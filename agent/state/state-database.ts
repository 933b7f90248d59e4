import { existsSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { StateBusy, StateDiskFull, StateUnusable } from './errors.ts';

/** The one SQLite file of a machine's state: durable, crash-safe, locked by the process that has it open. */

const schemaVersion = 1;
const cacheKibibytes = 4096;
const durableWrites = 'PRAGMA synchronous = FULL';
const quickWrites = 'PRAGMA synchronous = NORMAL';
const sqliteErrors = {
  busy: 5,
  locked: 6,
  readOnly: 8,
  ioError: 10,
  corrupt: 11,
  full: 13,
  cantOpen: 14,
  notDatabase: 26,
} as const;

const schema = `
  CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS pages (digest BLOB PRIMARY KEY, page BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS staged_pages (digest BLOB PRIMARY KEY) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS journal_segments (
    tenure INTEGER NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, units INTEGER NOT NULL, sha256 BLOB NOT NULL,
    PRIMARY KEY (tenure, number)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS journal_runs (
    disk TEXT NOT NULL, generation INTEGER NOT NULL, leaf INTEGER NOT NULL, tenure INTEGER NOT NULL, number INTEGER NOT NULL, runs BLOB NOT NULL,
    PRIMARY KEY (disk, generation, leaf, tenure, number)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS damaged_segments (
    tenure INTEGER NOT NULL, number INTEGER NOT NULL, staged INTEGER NOT NULL, PRIMARY KEY (tenure, number)) WITHOUT ROWID;
`;

export class StateDatabase implements Disposable {
  readonly #file: string;
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /** Throws StateBusy while another process has it open. `glance`: reads without the lock, what the file held when it was last closed. */
  constructor(file: string, { glance = false } = {}) {
    this.#file = file;
    if (glance) {
      this.#database = this.#guard(() => new DatabaseSync(withoutLocks(file), { readOnly: true }));
      this.#requireTables();
      return;
    }
    this.#database = this.#guard(() => new DatabaseSync(file));
    try {
      this.#guard(() => {
        this.#database.exec(`PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; ${durableWrites};
          PRAGMA cache_size = -${cacheKibibytes}; BEGIN IMMEDIATE; ${schema} COMMIT;`);
      });
      this.#checkVersion();
    } catch (error) {
      // Whoever does not get the database can't close it, and its lock would stay for as long as the process.
      this.#database.close();
      throw error;
    }
  }

  run(sql: string, ...values: (string | number | Uint8Array)[]): void {
    this.#guard(() => this.#prepare(sql).run(...values));
  }

  /** The value of column `value` in the first row. */
  blob(sql: string, ...values: (string | number | Uint8Array)[]): Uint8Array | null {
    const row = this.#guard(() => this.#prepare(sql).get(...values));
    return row?.value instanceof Uint8Array ? row.value : null;
  }

  rows(sql: string, ...values: (string | number | Uint8Array)[]): readonly Record<string, unknown>[] {
    return this.#guard(() => this.#prepare(sql).all(...values));
  }

  /** All or nothing, and durable once it returns. */
  transaction(work: () => void): void {
    try {
      this.#guard(() => this.#database.exec('BEGIN IMMEDIATE'));
      work();
      this.#guard(() => this.#database.exec('COMMIT'));
    } catch (error) {
      // Also where it has begun and its answer was an error: it would be in the way of the next one.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  /** All or nothing, and durable with the next durable transaction: a power cut may take the newest of these back, in order. */
  quickTransaction(work: () => void): void {
    this.#guard(() => this.#database.exec(quickWrites));
    try {
      this.transaction(work);
    } finally {
      this.#guard(() => this.#database.exec(durableWrites));
    }
  }

  /** Moves what the write-ahead log holds into the file itself. */
  emptyLog(): void {
    this.#guard(() => this.#database.exec('PRAGMA wal_checkpoint(TRUNCATE)'));
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#database.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  /** A file that its first process has open may hold nothing yet. */
  #requireTables(): void {
    const tables = this.rows("SELECT 1 FROM sqlite_schema WHERE name = 'facts'");
    if (tables.length > 0) return;
    this.#database.close();
    throw new StateBusy(`another failkit process makes ${this.#file} just now`);
  }

  #checkVersion(): void {
    const found = this.#guard(() => this.#database.prepare('PRAGMA user_version').get())?.user_version;
    if (found === 0) this.#guard(() => this.#database.exec(`PRAGMA user_version = ${schemaVersion}`));
    else if (found !== schemaVersion)
      throw new StateUnusable(`${this.#file} was written by another release (version ${found})`);
  }

  #guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw this.#translate(error);
    }
  }

  #translate(error: unknown): unknown {
    if (!(error instanceof Error && 'errcode' in error && typeof error.errcode === 'number')) return error;
    // The low byte is the primary result code.
    switch (error.errcode & 0xff) {
      case sqliteErrors.busy:
      case sqliteErrors.locked:
        return new StateBusy(`another failkit process works on this machine (${this.#file} is locked)`, {
          cause: error,
        });
      case sqliteErrors.full:
        return new StateDiskFull(`the disk of ${this.#file} is full: free some space; nothing published is lost`, {
          cause: error,
        });
      case sqliteErrors.corrupt:
      case sqliteErrors.notDatabase:
        return new StateUnusable(
          `${this.#file} is damaged: move its folder away; the next run rebuilds it from the bucket`,
          { cause: error },
        );
      case sqliteErrors.readOnly:
      case sqliteErrors.ioError:
      case sqliteErrors.cantOpen:
        return new StateUnusable(`${this.#file} can't be read and written: check the disk and its permissions`, {
          cause: error,
        });
      default:
        return error;
    }
  }
}

/** SQLite then takes no locks and looks at no write-ahead log. */
function withoutLocks(file: string): URL {
  const url = pathToFileURL(file);
  url.searchParams.set('immutable', '1');
  return url;
}

/** Whether the file holds all there is: its log is gone once the last process closed it, and stays while one works or after it was killed. */
export function isAtRest(file: string): boolean {
  return !existsSync(`${file}-wal`);
}
