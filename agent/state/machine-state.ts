import { createHash, randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { dataKeyBytes } from '../../crypto/data-key.ts';
import type { ChainHead } from '../../replica/chain.ts';
import type { Birth } from '../../replica/control.ts';
import { ByteReader, ByteWriter, sameBytes, toHex } from '../../replica/encoding.ts';
import { MachineKeys } from '../../replica/key-record.ts';
import { encodeManifest, type Manifest, parseManifest } from '../../replica/manifest.ts';
import type { SegmentId } from '../../replica/names.ts';
import type { KnownTrust } from '../../replica/open-repository.ts';
import {
  acknowledged,
  emptyTrackRecord,
  encodeTrackRecord,
  parseTrackRecord,
  type TrackRecord,
} from '../vigilance/track-record.ts';
import { StateBusy } from './errors.ts';
import { LocalSeal } from './local-seal.ts';
import { encodeRunRecord, parseRunRecord, type RunRecord } from './run-record.ts';
import { isAtRest, StateDatabase } from './state-database.ts';
import { inStateFolder, makeStateFolder } from './state-folder.ts';

/** Far more than the puts that can be under way when a run ends. */
const pendingHeadsMax = 64;
const digestBytes = 32;
const sealFile = 'seal.key';
const databaseFile = 'state.sqlite';

/**
 * What the agent remembers of one machine: who it is in the bucket, the newest head it knows, the sealed map of that head, and
 * the journal of an unfinished run. Losing it loses no data; a copy of it on another host is noticed by fencing.
 */
export class MachineState implements Disposable {
  readonly #database: StateDatabase;
  readonly #seal: LocalSeal;

  /**
   * `folder` is the state folder of the agent; the machine gets a folder of its own in it. Throws StateBusy. `glance`: only reads, and
   * takes no lock from a run that begins meanwhile; see `look`.
   */
  constructor(folder: string, machineName: string, { glance = false } = {}) {
    const own = ownFolder(folder, machineName);
    if (!glance) for (const path of [folder, join(folder, 'machines'), own]) makeStateFolder(path);
    this.#seal = inStateFolder(folder, () => LocalSeal.open(join(own, sealFile)));
    this.#database = new StateDatabase(join(own, databaseFile), { glance });
  }

  /**
   * What `read` makes of the state as it is, without being in the way of a run; null where there is none. `running`: a run works on the
   * machine, and `read` sees what was known before it.
   */
  static look<T>(folder: string, machineName: string, read: (state: MachineState, running: boolean) => T): T | null {
    const file = join(ownFolder(folder, machineName), databaseFile);
    if (!inStateFolder(folder, () => statSync(file, { throwIfNoEntry: false }))?.isFile()) return null;
    if (!isAtRest(file)) {
      try {
        using state = new MachineState(folder, machineName);
        return read(state, false);
      } catch (error) {
        if (!(error instanceof StateBusy)) throw error;
      }
    }
    using state = new MachineState(folder, machineName, { glance: true });
    return read(state, !isAtRest(file));
  }

  get machineId(): Uint8Array | null {
    return this.#fact('machine-id');
  }

  /** The id under which this machine's replica is kept, in the repository of that id. */
  claim(repositoryId: Uint8Array, machineId: Uint8Array): void {
    this.#database.transaction(() => {
      this.#setFact('repository-id', repositoryId);
      this.#setFact('machine-id', machineId);
    });
  }

  get repositoryId(): Uint8Array | null {
    return this.#fact('repository-id');
  }

  /** The newest entry that is known to exist. */
  get head(): ChainHead | null {
    return parseHeads(this.#fact('head'))[0] ?? null;
  }

  /** The newest trust statement that was seen. */
  get trust(): KnownTrust | null {
    const [newest] = parseHeads(this.#fact('trust'));
    return newest === undefined ? null : { n: newest.seq, digest: newest.digest };
  }

  setTrust({ n, digest }: KnownTrust): void {
    this.#setFact('trust', encodeHead({ seq: n, digest }));
  }

  /** Whether a recovery point was published from here. */
  get hasPublished(): boolean {
    return this.#fact('manifest') !== null;
  }

  get runRecord(): RunRecord {
    return parseRunRecord(this.#sealedFact('run-record'));
  }

  /** Sealed, because errors name what they are about. */
  keepRunRecord(record: RunRecord): void {
    this.#setSealedFact('run-record', encodeRunRecord(record));
  }

  /** What was written so far is seen by those who only glance. */
  showToOthers(): void {
    this.#database.emptyLog();
  }

  /** Entries of ours that may exist: their puts were started, and their answers never seen. The latest is last. */
  get pendingHeads(): readonly ChainHead[] {
    return parseHeads(this.#fact('pending-heads'));
  }

  /** A put may arrive after others were tried in its place, so that the earlier ones are remembered, too. */
  addPendingHead(head: ChainHead): void {
    const pending = [...this.pendingHeads, head].slice(-pendingHeadsMax);
    this.#setFact('pending-heads', Buffer.concat(pending.map(encodeHead)));
  }

  setHead(head: ChainHead): void {
    this.#database.transaction(() => {
      this.#setFact('head', encodeHead(head));
      this.#database.run("DELETE FROM facts WHERE name = 'pending-heads'");
    });
  }

  /** Forgets what an earlier run staged and never published. */
  dropStaged(): void {
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM pages WHERE digest IN (SELECT digest FROM staged_pages)');
      this.#database.run('DELETE FROM staged_pages');
      this.#database.run("DELETE FROM facts WHERE name IN ('staged-manifest', 'staged-track-record')");
      this.#database.run('UPDATE damaged_segments SET staged = 0');
    });
  }

  /** Segments of the newest point that verifying found damaged: the next run leaves them behind. */
  get damagedSegments(): readonly SegmentId[] {
    return this.#database
      .rows('SELECT tenure, number FROM damaged_segments')
      .map(({ tenure, number }) => ({ tenure: Number(tenure), number: Number(number) }));
  }

  addDamagedSegments(ids: readonly SegmentId[]): void {
    this.#database.transaction(() => {
      for (const { tenure, number } of ids)
        this.#database.run('INSERT OR REPLACE INTO damaged_segments VALUES (?, ?, 0)', tenure, number);
    });
  }

  /** The staged point uses none of the segments that are known to be damaged; once it is settled, they are forgotten. */
  stageRepair(): void {
    this.#database.run('UPDATE damaged_segments SET staged = 1');
  }

  clearDamagedSegments(): void {
    this.#database.run('DELETE FROM damaged_segments');
  }

  /** Keeps pages that the next point will have. What a power cut takes of them is fetched from the bucket again. */
  stagePages(pages: Iterable<readonly [digest: Uint8Array, page: Uint8Array]>): void {
    this.#database.quickTransaction(() => {
      for (const [digest, page] of pages) {
        this.addPage(digest, page);
        this.#database.run('INSERT OR REPLACE INTO staged_pages (digest) VALUES (?)', digest);
      }
    });
  }

  /**
   * Keeps the manifest of the point whose publish entry has this digest, and what is known of the machine with that point. Called
   * before the entry is put.
   */
  stagePoint(entryDigest: Uint8Array, manifest: Manifest, track: TrackRecord | null): void {
    this.#database.transaction(() => {
      this.#setSealedFact('staged-manifest', new ByteWriter().raw(entryDigest).raw(encodeManifest(manifest)).finish());
      if (track !== null) this.#setSealedFact('staged-track-record', encodeTrackRecord(track));
    });
  }

  get trackRecord(): TrackRecord {
    return this.#trackRecord('track-record') ?? emptyTrackRecord;
  }

  #trackRecord(name: 'track-record' | 'staged-track-record'): TrackRecord | null {
    const value = this.#sealedFact(name);
    return value === null ? null : parseTrackRecord(value);
  }

  /** At once, whether a point comes of the run or not. */
  keepTrackRecord(record: TrackRecord): void {
    this.#setSealedFact('track-record', encodeTrackRecord(record));
  }

  /** A person has seen all alarms that there are. */
  acknowledgeAlarms(): void {
    this.#database.transaction(() => {
      for (const name of ['track-record', 'staged-track-record'] as const) {
        const record = this.#trackRecord(name);
        if (record !== null) this.#setSealedFact(name, encodeTrackRecord(acknowledged(record)));
      }
    });
  }

  /** The staged point was published: its manifest is the newest, its predecessor's pages and the journal go. */
  settlePoint(droppedPages: Iterable<Uint8Array>): void {
    this.#database.transaction(() => {
      const staged = this.#sealedFact('staged-manifest');
      if (staged !== null) this.#setSealedFact('manifest', staged);
      const track = this.#sealedFact('staged-track-record');
      if (track !== null) this.#setSealedFact('track-record', track);
      this.#database.run("DELETE FROM facts WHERE name IN ('staged-manifest', 'staged-track-record')");
      this.#database.run('DELETE FROM staged_pages');
      this.#database.run('DELETE FROM damaged_segments WHERE staged = 1');
      for (const digest of droppedPages) this.#database.run('DELETE FROM pages WHERE digest = ?', digest);
      this.#forgetJournal();
    });
  }

  /** The manifest of the point with this entry digest, if it is the one that is kept. */
  manifest(entryDigest: Uint8Array): Manifest | null {
    return this.manifests().find((kept) => sameBytes(kept.entryDigest, entryDigest))?.manifest ?? null;
  }

  /** Those that are kept, with the digests of their publish entries: the newest point's, and one whose publishing was not confirmed. */
  manifests(): readonly KeptManifest[] {
    const kept: KeptManifest[] = [];
    for (const name of ['manifest', 'staged-manifest'] as const) {
      const value = this.#sealedFact(name);
      if (value === null) continue;
      const manifest = parseManifest(value.subarray(digestBytes), `local ${name}`);
      const track = this.#trackRecord(name === 'manifest' ? 'track-record' : 'staged-track-record');
      kept.push({ entryDigest: value.slice(0, digestBytes), manifest, track: track ?? this.trackRecord });
    }
    return kept;
  }

  page(digest: Uint8Array): Uint8Array | null {
    const sealed = this.#database.blob('SELECT page AS value FROM pages WHERE digest = ?', digest);
    return sealed === null ? null : this.#seal.unseal(sealed, `page ${toHex(digest)}`);
  }

  hasPage(digest: Uint8Array): boolean {
    return this.#database.rows('SELECT 1 FROM pages WHERE digest = ?', digest).length > 0;
  }

  addPage(digest: Uint8Array, page: Uint8Array): void {
    const sealed = this.#seal.seal(page, `page ${toHex(digest)}`);
    this.#database.run('INSERT OR REPLACE INTO pages (digest, page) VALUES (?, ?)', digest, sealed);
  }

  /** Forgets the map of the newest point. */
  clearPages(): void {
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM pages');
      this.#database.run('DELETE FROM staged_pages');
    });
  }

  get machineKeys(): MachineKeys | null {
    const keys = this.#sealedFact('machine-keys');
    return keys === null ? null : new MachineKeys(keys.slice(0, 32), keys.slice(32, 64));
  }

  keepMachineKeys(keys: MachineKeys): void {
    this.#setSealedFact('machine-keys', Buffer.concat([keys.digestKey, keys.saltKey]));
  }

  /** Of the epoch in force, for runs that the key service does not answer. */
  keepDataKey(epoch: number, key: Uint8Array): void {
    const fact = new ByteWriter().u32(epoch).raw(key).finish();
    this.#setSealedFact('data-key', fact);
    fact.fill(0);
  }

  /** Null where another epoch's is kept, or none. The caller zeroes it. */
  dataKey(epoch: number): Uint8Array | null {
    const fact = this.#sealedFact('data-key');
    if (fact === null) return null;
    const reader = new ByteReader('local data key', fact);
    const kept = reader.u32() === epoch ? Uint8Array.from(reader.raw(dataKeyBytes)) : null;
    fact.fill(0);
    return kept;
  }

  /** The next run shall end this key epoch. */
  askForRotation(epoch: number): void {
    this.#setFact('rotation-asked', new ByteWriter().u32(epoch).finish());
  }

  get rotationAskedIn(): number | null {
    const fact = this.#fact('rotation-asked');
    return fact === null ? null : new ByteReader('local rotation mark', fact).u32();
  }

  /** This host itself locked everything at that place until then. */
  keepLock(place: string, untilMs: number): void {
    this.#setSealedFact('lock', new ByteWriter().varint(untilMs).text(place).finish());
  }

  /** 0: it never did. What a chain says may be said by a thief of the agent's key, to keep this host from locking. */
  lockedUntilMs(place: string): number {
    const fact = this.#sealedFact('lock');
    if (fact === null) return 0;
    const reader = new ByteReader('local lock', fact);
    const untilMs = reader.varint();
    return reader.text() === place ? untilMs : 0;
  }

  /**
   * A segment of the unfinished run is durable in the bucket; `leaves` say which blocks it holds, as encoded leaf pages. What a power
   * cut takes of this is sent again: waiting for the disk here would hold up every upload.
   */
  journal(birth: Birth, leaves: readonly JournalLeaf[]): void {
    this.#database.quickTransaction(() => {
      this.#database.run(
        'INSERT OR REPLACE INTO journal_segments (tenure, number, size, units, sha256) VALUES (?, ?, ?, ?, ?)',
        birth.tenure,
        birth.number,
        birth.size,
        birth.units,
        birth.sha256,
      );
      for (const leaf of leaves) {
        this.#database.run(
          'INSERT OR REPLACE INTO journal_runs (disk, generation, leaf, tenure, number, runs) VALUES (?, ?, ?, ?, ?, ?)',
          leaf.disk,
          leaf.generation,
          leaf.leafIndex,
          birth.tenure,
          birth.number,
          this.#seal.seal(leaf.page, journalBinding(leaf)),
        );
      }
    });
  }

  journalSegments(): readonly Birth[] {
    return this.#database.rows('SELECT tenure, number, size, units, sha256 FROM journal_segments').map((row) => ({
      tenure: Number(row.tenure),
      number: Number(row.number),
      size: Number(row.size),
      units: Number(row.units),
      sha256: row.sha256 instanceof Uint8Array ? row.sha256 : new Uint8Array(),
    }));
  }

  /** Whether an unfinished run has sent anything of the disk. */
  hasJournalOf(disk: string, generation: number): boolean {
    return (
      this.#database.rows('SELECT 1 FROM journal_runs WHERE disk = ? AND generation = ? LIMIT 1', disk, generation)
        .length > 0
    );
  }

  /** Leaf pages that the unfinished run sealed for this leaf. */
  journalLeaves(disk: string, generation: number, leafIndex: number): readonly Uint8Array[] {
    const rows = this.#database.rows(
      'SELECT runs FROM journal_runs WHERE disk = ? AND generation = ? AND leaf = ?',
      disk,
      generation,
      leafIndex,
    );
    const pages = rows.map(({ runs }) =>
      runs instanceof Uint8Array ? this.#seal.unseal(runs, journalBinding({ disk, generation, leafIndex })) : null,
    );
    return pages.filter((page) => page !== null);
  }

  /** The id of a disk that no point has yet: the same until one has, or what an interrupted first copy sent would not be found again. */
  newDiskId(label: string): Uint8Array {
    const name = `new-disk ${label}`;
    const known = this.#fact(name);
    if (known !== null) return known;
    const fresh = Uint8Array.from(randomBytes(16));
    this.#setFact(name, fresh);
    return fresh;
  }

  clearJournal(): void {
    this.#database.transaction(() => this.#forgetJournal());
  }

  #forgetJournal(): void {
    this.#database.run('DELETE FROM journal_runs');
    this.#database.run('DELETE FROM journal_segments');
    this.#database.run("DELETE FROM facts WHERE name GLOB 'new-disk *'");
  }

  /** Forgets all but the identity: for a cache that is to be rebuilt. */
  clearCache(): void {
    this.#database.transaction(() => {
      this.#forgetJournal();
      this.#database.run('DELETE FROM pages');
      this.#database.run('DELETE FROM staged_pages');
      this.#database.run(
        "DELETE FROM facts WHERE name IN ('manifest', 'staged-manifest', 'staged-track-record', 'machine-keys', 'data-key')",
      );
    });
  }

  /** Forgets the replica itself: the machine begins another one, and the old one stays in the bucket as it is. */
  forgetReplica(): void {
    this.clearCache();
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM damaged_segments');
      this.#database.run(
        "DELETE FROM facts WHERE name IN ('machine-id', 'repository-id', 'head', 'pending-heads', 'trust', 'track-record', 'data-key', 'rotation-asked', 'lock')",
      );
    });
  }

  [Symbol.dispose](): void {
    this.#database[Symbol.dispose]();
  }

  #fact(name: string): Uint8Array | null {
    return this.#database.blob('SELECT value FROM facts WHERE name = ?', name);
  }

  #setFact(name: string, value: Uint8Array): void {
    this.#database.run('INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)', name, value);
  }

  #sealedFact(name: string): Uint8Array | null {
    const sealed = this.#fact(name);
    return sealed === null ? null : this.#seal.unseal(sealed, name.replace('staged-', ''));
  }

  #setSealedFact(name: string, value: Uint8Array): void {
    this.#setFact(name, this.#seal.seal(value, name.replace('staged-', '')));
  }
}

export interface KeptManifest {
  readonly entryDigest: Uint8Array;
  readonly manifest: Manifest;
  /** What is known of the machine where that point is the newest. */
  readonly track: TrackRecord;
}

export interface JournalLeaf {
  readonly disk: string;
  readonly generation: number;
  readonly leafIndex: number;
  /** Encoded as a leaf page. */
  readonly page: Uint8Array;
}

function journalBinding(leaf: Omit<JournalLeaf, 'page'>): string {
  return `journal ${leaf.disk} ${leaf.generation} ${leaf.leafIndex}`;
}

function encodeHead(head: ChainHead): Uint8Array {
  return new ByteWriter().u64(head.seq).raw(head.digest).finish();
}

function parseHeads(value: Uint8Array | null): readonly ChainHead[] {
  const reader = new ByteReader('local head mark', value ?? new Uint8Array());
  const heads: ChainHead[] = [];
  while (reader.remaining > 0) heads.push({ seq: reader.u64(), digest: reader.raw(digestBytes).slice() });
  return heads;
}

function ownFolder(folder: string, machineName: string): string {
  return join(folder, 'machines', folderNameOf(machineName));
}

/** A folder name that people recognise and that no two machines share. */
function folderNameOf(machineName: string): string {
  const readable = machineName.replace(/[^A-Za-z0-9._-]/g, '_').slice(0, 60);
  return `${readable}-${createHash('sha256').update(machineName).digest('hex').slice(0, 8)}`;
}
