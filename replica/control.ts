import { epochMax } from './chain-entry.ts';
import { DecodedList, type LongList } from './decoded-list.ts';
import { ByteReader, ByteWriter } from './encoding.ts';
import { compareSegments, type SegmentId } from './names.ts';

/** Control data of chain entries: docs/format.md §8.2. Plain but signed, so that a sweeper needs no key. */

/** A segment that a publish uses for the first time. */
export interface Birth extends SegmentId {
  readonly size: number;
  /** Blocks, pages and attachment chunks in it, used or not. */
  readonly units: number;
  readonly sha256: Uint8Array;
}

/** Units of a segment that the newest point used and the next does not, or that a birth brought unused. */
export interface Death extends SegmentId {
  readonly units: number;
}

export interface SegmentLife extends Birth {
  readonly dead: number;
  /** Seq of its first publish. */
  readonly birth: number;
  /** Seq of the first publish at which nothing of it was left; 0: none. */
  readonly death: number;
}

export interface RetainedPoint {
  readonly seq: number;
  readonly timeMs: number;
  /** SHA-256 of the publish entry. */
  readonly digest: Uint8Array;
}

export interface AdoptedTenure {
  readonly tenure: number;
  /** Only segments above it may be adopted. */
  readonly watermark: number;
}

export interface EpochKeyRecord {
  readonly epoch: number;
  /** SHA-256 of revision 0 of its key record. */
  readonly keyRecordDigest: Uint8Array;
}

export interface Summary {
  readonly tenure: number;
  /** Key id of the agent that opened the tenure. */
  readonly ownerKeyId: Uint8Array;
  readonly hasPublished: boolean;
  readonly watermark: number;
  /** Ascending; the last is in force. */
  readonly epochs: readonly EpochKeyRecord[];
  readonly adopted: readonly AdoptedTenure[];
  readonly lockGeneration: number;
  readonly lockUntilMs: number;
  readonly points: readonly RetainedPoint[];
  readonly segments: LongList<SegmentLife>;
}

export interface Control {
  /** Of a publish; empty otherwise. */
  readonly births: LongList<Birth>;
  readonly deaths: LongList<Death>;
  readonly summary: Summary | null;
}

/** Of a birth or a segment of a summary, about. */
const bytesPerLine = 52;

export interface ControlShape {
  readonly publish: boolean;
  readonly summary: boolean;
}

export function encodeControl(control: Control, shape: ControlShape): Uint8Array {
  const writer = new ByteWriter(256 + bytesPerLine * (control.births.length + (control.summary?.segments.length ?? 0)));
  if (shape.publish) {
    writer.varint(control.births.length);
    for (const birth of control.births) writeBirth(writer, birth);
    writer.varint(control.deaths.length);
    for (const death of control.deaths) writer.varint(death.tenure).varint(death.number).varint(death.units);
  }
  if (control.summary !== null) writeSummary(writer, control.summary);
  return writer.finish();
}

export function parseControl(bytes: Uint8Array, shape: ControlShape, object: string): Control {
  const reader = new ByteReader(object, bytes);
  const births = shape.publish ? readSorted(reader, 36, readBirth) : [];
  const deaths = shape.publish ? readSorted(reader, 3, readDeath) : [];
  const summary = shape.summary ? readSummary(reader) : null;
  reader.end();
  return { births, deaths, summary };
}

function writeBirth(writer: ByteWriter, birth: Birth): void {
  writer.varint(birth.tenure).varint(birth.number).varint(birth.size).varint(birth.units).raw(birth.sha256);
}

function readBirth(reader: ByteReader): Birth {
  return {
    tenure: reader.varint(),
    number: reader.varint(),
    size: reader.varint(),
    units: reader.varint(),
    sha256: reader.raw(32).slice(),
  };
}

function readDeath(reader: ByteReader): Death {
  const death = { tenure: reader.varint(), number: reader.varint(), units: reader.varint() };
  if (death.units === 0) throw reader.invalid('a death of nothing', reader.offset - 1);
  return death;
}

function writeSummary(writer: ByteWriter, summary: Summary): void {
  writer
    .varint(summary.tenure)
    .raw(summary.ownerKeyId)
    .u8(summary.hasPublished ? 1 : 0)
    .varint(summary.watermark);
  writer.varint(summary.epochs.length);
  for (const { epoch, keyRecordDigest } of summary.epochs) writer.varint(epoch).raw(keyRecordDigest);
  writer.varint(summary.adopted.length);
  for (const { tenure, watermark } of summary.adopted) writer.varint(tenure).varint(watermark);
  writer.varint(summary.lockGeneration).varint(summary.lockUntilMs).varint(summary.points.length);
  for (const { seq, timeMs, digest } of summary.points) writer.varint(seq).varint(timeMs).raw(digest);
  writer.varint(summary.segments.length);
  for (const life of summary.segments) {
    writer.varint(life.tenure).varint(life.number).varint(life.size).varint(life.units);
    writer.varint(life.dead).varint(life.birth).varint(life.death).raw(life.sha256);
  }
}

function readSummary(reader: ByteReader): Summary {
  const tenure = reader.varint();
  const ownerKeyId = reader.raw(16).slice();
  const hasPublished = reader.flag();
  const watermark = reader.varint();
  const epochs = readList(reader, 33, () => ({ epoch: reader.varint(), keyRecordDigest: reader.raw(32).slice() }));
  requireAscending(reader, epochs, (a, b) => a.epoch - b.epoch, 'epochs');
  if (epochs.length === 0) throw reader.invalid('a summary without key epochs');
  if (epochs.some(({ epoch }) => epoch < 1 || epoch > epochMax)) throw reader.invalid('an impossible key epoch');
  const adopted = readList(reader, 2, () => ({ tenure: reader.varint(), watermark: reader.varint() }));
  requireAscending(reader, adopted, (a, b) => a.tenure - b.tenure, 'adopted tenures');
  const lockGeneration = reader.varint();
  const lockUntilMs = reader.varint();
  const points = readList(reader, 34, () => ({
    seq: reader.varint(),
    timeMs: reader.varint(),
    digest: reader.raw(32).slice(),
  }));
  requireAscending(reader, points, (a, b) => a.seq - b.seq, 'points');
  const segments = readSorted(reader, 39, readLife);
  return {
    tenure,
    ownerKeyId,
    hasPublished,
    watermark,
    epochs,
    adopted,
    lockGeneration,
    lockUntilMs,
    points,
    segments,
  };
}

function readLife(reader: ByteReader): SegmentLife {
  const start = reader.offset;
  const life = {
    tenure: reader.varint(),
    number: reader.varint(),
    size: reader.varint(),
    units: reader.varint(),
    dead: reader.varint(),
    birth: reader.varint(),
    death: reader.varint(),
    sha256: reader.raw(32).slice(),
  };
  const consistent = life.dead <= life.units && (life.dead === life.units) === (life.death !== 0);
  if (!consistent) throw reader.invalid('a segment whose dead units and death disagree', start);
  return life;
}

function readSorted<T extends SegmentId>(
  reader: ByteReader,
  unitBytes: number,
  read: (reader: ByteReader) => T,
): LongList<T> {
  const count = reader.count(unitBytes);
  const start = reader.offset;
  let previous: T | null = null;
  for (let i = 0; i < count; i++) {
    const item = read(reader);
    if (previous !== null && compareSegments(previous, item) >= 0) throw reader.invalid('segments out of order');
    previous = item;
  }
  return new DecodedList(reader.since(start), count, read);
}

function readList<T>(reader: ByteReader, unitBytes: number, read: () => T): readonly T[] {
  return Array.from({ length: reader.count(unitBytes) }, read);
}

function requireAscending<T>(
  reader: ByteReader,
  list: readonly T[],
  compare: (a: T, b: T) => number,
  what: string,
): void {
  list.forEach((item, i) => {
    const previous = list[i - 1];
    if (previous !== undefined && compare(previous, item) >= 0) throw reader.invalid(`${what} out of order`);
  });
}
