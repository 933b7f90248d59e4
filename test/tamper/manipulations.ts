import type { DataKey } from '../../crypto/data-key.ts';
import { chainEntryName } from '../../replica/names.ts';
import { type Changes, difference, type Objects } from './bucket-directory.ts';
import { type Field, fieldsOf, kindOf, type ObjectKind } from './object-fields.ts';
import type { Specimen } from './specimen.ts';

/** Everything that somebody who can write to the bucket, and has no key, may try. */

/** One thing that was done to the bucket. */
export interface Manipulation {
  readonly kind: ObjectKind | 'bucket';
  readonly name: string;
  /** The field that was hit, where it was one; else the object. */
  readonly where: string;
  readonly changes: Changes;
  /** A state that once was right, or could have been: only those notice who remember the newer one. */
  readonly wasRight: boolean;
}

export interface Thoroughness {
  /** How many bytes of each field are flipped; null: the object is left alone. */
  readonly bytesPerField: (name: string) => number | null;
  /** Objects also change places, and are read around; else each is only hurt by itself, or replaced. */
  readonly everything: boolean;
}

export type KeyOf = (machine: string, epoch: number) => DataKey;

export function* manipulations(specimen: Specimen, keyOf: KeyOf, how: Thoroughness): Generator<Manipulation> {
  const names = [...specimen.objects.keys()].filter((name) => how.bytesPerField(name) !== null);
  for (const name of names) yield* ofOneObject(specimen, name, keyOf, how);
  yield* recordExchanges(specimen, names, keyOf);
  yield* foreigners(specimen, names);
  if (!how.everything) return;
  yield* exchanges(specimen, names);
  yield* additions(specimen);
  yield* wholeBuckets(specimen);
}

function* ofOneObject({ objects }: Specimen, name: string, keyOf: KeyOf, how: Thoroughness): Generator<Manipulation> {
  const bytes = bytesOf(objects, name);
  const kind = kindOf(name);
  const place = /keys\/\d{8}\/(?!0000)/.test(name) ? (where: string) => `a later revision: ${where}` : String;
  const one = (manipulation: string, changed: Uint8Array | null, where = place('the object')): Manipulation => {
    return { kind, name: manipulation, where, changes: new Map([[name, changed]]), wasRight: false };
  };
  for (const field of fieldsOf(name, bytes, (epoch) => keyOf(name.split('/')[1] ?? '', epoch))) {
    for (const offset of chosen(field, how.bytesPerField(name) ?? 0)) {
      yield one('flip', flipped(bytes, offset), place(field.name));
    }
  }
  yield one('truncate by 1', bytes.slice(0, -1));
  yield one('truncate to half', bytes.slice(0, bytes.length >> 1));
  yield one('empty', new Uint8Array());
  yield one('extend by 1', Buffer.concat([bytes, Uint8Array.of(0)]));
  yield one('double', Buffer.concat([bytes, bytes]));
  yield one('zero', new Uint8Array(bytes.length));
  yield one('remove', null);
}

/** Evenly spread, the first and the last among them. */
function chosen({ offset, length }: Field, count: number): readonly number[] {
  const steps = Math.min(count, length);
  return Array.from({ length: steps }, (_, i) => offset + Math.round((i * (length - 1)) / Math.max(1, steps - 1)));
}

/** Another bit at each offset. */
function flipped(bytes: Uint8Array, offset: number): Uint8Array {
  const changed = bytes.slice();
  changed[offset] = (changed[offset] ?? 0) ^ (1 << (offset % 8));
  return changed;
}

/** Two objects of one kind under each other's name; one of them under both, the other gone. */
function* exchanges({ objects }: Specimen, names: readonly string[]): Generator<Manipulation> {
  for (const a of names) {
    for (const b of names.filter((other) => other > a && kindOf(other) === kindOf(a)).filter(isNear(a))) {
      const [first, second] = [bytesOf(objects, a), bytesOf(objects, b)];
      const where = placesApart(a, b);
      const both = (name: string, changes: Changes): Manipulation => ({
        kind: kindOf(a),
        name,
        where,
        changes,
        wasRight: false,
      });
      yield both(
        'swap',
        new Map([
          [a, second],
          [b, first],
        ]),
      );
      yield both('put under the other name', new Map([[b, first]]));
      yield both('put under the other name', new Map([[a, second]]));
      yield both(
        'put under the other name, and gone',
        new Map([
          [a, second],
          [b, null],
        ]),
      );
    }
  }
}

/** The chain is long: of its entries only those that stand near each other, or on the other machine's chain. */
function isNear(a: string): (b: string) => boolean {
  return (b) => {
    if (kindOf(a) !== 'chain entry' || machineOf(a) !== machineOf(b)) return true;
    return Math.abs(Number(a.split('/').at(-1)) - Number(b.split('/').at(-1))) <= 2;
  };
}

function placesApart(a: string, b: string): string {
  if (machineOf(a) !== machineOf(b)) return 'between machines';
  return 'within a machine';
}

/** The same name's object of the fork, of an earlier time, of another repository. */
function* foreigners({ objects, fork, stranger }: Specimen, names: readonly string[]): Generator<Manipulation> {
  for (const [where, source] of [
    ['of a fork', fork],
    ['of another repository', stranger],
  ] as const) {
    for (const name of names) {
      const bytes = source.get(name);
      if (bytes === undefined || Buffer.compare(bytes, bytesOf(objects, name)) === 0) continue;
      yield {
        kind: kindOf(name),
        name: 'replace by the same',
        where,
        changes: new Map([[name, bytes]]),
        wasRight: false,
      };
    }
  }
}

/** Two sealed records of one length change places: of one disk, of two disks, in one segment and across two. */
function* recordExchanges({ objects }: Specimen, names: readonly string[], keyOf: KeyOf): Generator<Manipulation> {
  for (const name of names.filter((candidate) => kindOf(candidate) === 'segment')) {
    const bytes = bytesOf(objects, name);
    const records = sealedRecords(name, bytes, keyOf);
    for (const [i, a] of records.entries()) {
      for (const b of records.slice(i + 1).filter(({ length }) => length === a.length)) {
        const changed = bytes.slice();
        changed.set(bytes.subarray(a.offset, a.offset + a.length), b.offset);
        changed.set(bytes.subarray(b.offset, b.offset + b.length), a.offset);
        yield {
          kind: 'segment',
          name: 'swap records',
          where: 'in one segment',
          changes: new Map([[name, changed]]),
          wasRight: false,
        };
      }
    }
    for (const other of names.filter((candidate) => kindOf(candidate) === 'segment' && candidate > name)) {
      yield* acrossSegments({ objects, name, other, records }, keyOf);
    }
  }
}

function* acrossSegments(
  from: { objects: Objects; name: string; other: string; records: readonly Field[] },
  keyOf: KeyOf,
): Generator<Manipulation> {
  const [bytes, otherBytes] = [bytesOf(from.objects, from.name), bytesOf(from.objects, from.other)];
  for (const b of sealedRecords(from.other, otherBytes, keyOf)) {
    const a = from.records.find(({ length }) => length === b.length);
    if (a === undefined) continue;
    const changed = bytes.slice();
    changed.set(otherBytes.subarray(b.offset, b.offset + b.length), a.offset);
    const where = `across segments, ${placesApart(from.name, from.other)}`;
    yield { kind: 'segment', name: 'swap records', where, changes: new Map([[from.name, changed]]), wasRight: false };
  }
}

/** Ciphertext and tag together. */
function sealedRecords(name: string, bytes: Uint8Array, keyOf: KeyOf): readonly Field[] {
  const fields = fieldsOf(name, bytes, (epoch) => keyOf(machineOf(name), epoch));
  const records: Field[] = [];
  fields.forEach((field, i) => {
    const body = fields[i - 1];
    const isTag = body !== undefined && field.name === `${body.name} tag` && body.name !== 'footer';
    if (isTag) records.push({ ...body, length: body.length + field.length });
  });
  return records;
}

/** Objects that nobody of us wrote, at places where readers look. */
function* additions({ objects, machines }: Specimen): Generator<Manipulation> {
  const added = (kind: ObjectKind, where: string, changes: Changes): Manipulation => ({
    kind,
    name: 'add',
    where,
    changes,
    wasRight: false,
  });
  for (const { id, hex, head } of machines) {
    const next = chainEntryName(id, head.seq + 1);
    for (const [name, bytes] of objects) {
      if (kindOf(name) === 'chain entry' && machineOf(name) === hex && bytes.length > 210)
        yield added('chain entry', 'an older entry again, as the next', new Map([[next, bytes]]));
    }
    yield added('chain entry', 'garbage', new Map([[next, new Uint8Array(300)]]));
    yield added(
      'key record',
      'garbage as a later revision',
      new Map([[`machines/${hex}/keys/00000001/0009`, new Uint8Array(300)]]),
    );
    const first = bytesOf(objects, `machines/${hex}/keys/00000001/0000`);
    yield added('key record', 'revision 0 as a later one', new Map([[`machines/${hex}/keys/00000001/0009`, first]]));
    yield added(
      'segment',
      'garbage',
      new Map([[`machines/${hex}/segments/0000000000000001/0000009999`, new Uint8Array(300)]]),
    );
  }
  const [newest] = [...objects.keys()].filter((name) => name.startsWith('trust/'));
  const after = `trust/${String(Number(newest?.split('/')[1] ?? 0) - 1).padStart(16, '0')}`;
  yield added('trust', 'an older statement again, as the next', new Map([[after, bytesOf(objects, newest ?? '')]]));
  yield added('trust', 'garbage', new Map([[after, new Uint8Array(300)]]));
}

/** Earlier states, the fork, and chains that end early or have a hole. */
function* wholeBuckets({ objects, earlier, fork, stranger, machines }: Specimen): Generator<Manipulation> {
  const whole = (name: string, where: string, to: Objects, wasRight = false): Manipulation => {
    return { kind: 'bucket', name, where, changes: difference(objects, to), wasRight };
  };
  for (const [i, state] of earlier.entries()) yield whole('roll back', `to state ${i}`, state, true);
  yield whole('replace', 'by its fork', fork, true);
  yield whole('replace', 'by another repository', stranger);
  for (const { id, hex, head } of machines) {
    const without = (gone: (name: string) => boolean): Objects => new Map([...objects].filter(([name]) => !gone(name)));
    yield whole(
      'remove',
      'a whole machine',
      without((name) => machineOf(name) === hex),
    );
    for (const kind of ['chain entry', 'key record', 'segment'] as const)
      yield whole(
        'remove',
        `every ${kind} of a machine`,
        without((name) => kindOf(name) === kind && machineOf(name) === hex),
      );
    for (const count of [1, 2, 3].filter((few) => few < head.seq)) {
      const ends = new Set(Array.from({ length: count }, (_, i) => chainEntryName(id, head.seq - i)));
      yield whole(
        'remove',
        `the newest ${count} entries`,
        without((name) => ends.has(name)),
        true,
      );
    }
  }
  for (const kind of ['trust', 'repository'] as const)
    yield whole('remove', `every ${kind}`, new Map([...objects].filter(([name]) => kindOf(name) !== kind)));
  yield* partsOfFork(objects, fork);
}

/** The fork's entries on our segments, and ours on the fork's. */
function* partsOfFork(objects: Objects, fork: Objects): Generator<Manipulation> {
  for (const kind of ['chain entry', 'segment'] as const) {
    const changes = [...difference(objects, fork)].filter(([name]) => kindOf(name) === kind);
    yield {
      kind: 'bucket',
      name: 'mix with its fork',
      where: `its ${kind}`,
      changes: new Map(changes),
      wasRight: false,
    };
  }
}

function machineOf(name: string): string {
  return name.split('/')[1] ?? '';
}

function bytesOf(objects: Objects, name: string): Uint8Array {
  const bytes = objects.get(name);
  if (bytes === undefined) throw new Error(`there is no ${name}`);
  return bytes;
}
