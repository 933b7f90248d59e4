import { chainEntryName, keyRecordName, segmentName, trustName } from '../../replica/names.ts';
import type { Thoroughness } from './manipulations.ts';
import { kindOf } from './object-fields.ts';
import type { Specimen } from './specimen.ts';

/** How much of a specimen is looked at. */

const spotsPerField = 4;
/** A lock is the shortest entry there is; the chain has many, and one is as good as another. */
const lockBytesMax = 209;

/** Every byte of a small object of each sort, spots of all others but the many locks. */
export function thorough(specimen: Specimen): Thoroughness {
  const [{ id, newest, third }, { objects }] = [namesOf(specimen), specimen];
  const every = [
    'repository',
    trustName(1),
    keyRecordName(id, 1, 0),
    ...[0, 1].map((n) => chainEntryName(id, newest - n)),
  ];
  const locks = [2, 3].map((n) => chainEntryName(id, newest - n));
  return {
    everything: true,
    bytesPerField: (name) => {
      const size = objects.get(name)?.length ?? 0;
      if (every.includes(name)) return size;
      if (name.split('/')[1] === third) return kindOf(name) === 'control object' ? spotsPerField : null;
      const isOneOfMany = kindOf(name) === 'chain entry' && size <= lockBytesMax && !locks.includes(name);
      return isOneOfMany ? null : spotsPerField;
    },
  };
}

/** One byte of each field of an object of each kind. */
export function quick(specimen: Specimen): Thoroughness {
  const { id, newest } = namesOf(specimen);
  const segments = [1, 2].map((number) => segmentName(id, { tenure: newest - 1, number }));
  const taken = [
    'repository',
    trustName(0),
    trustName(1),
    keyRecordName(id, 1, 0),
    chainEntryName(id, newest),
    ...segments,
  ];
  return { everything: false, bytesPerField: (name) => (taken.includes(name) ? 1 : null) };
}

function namesOf({ machines }: Specimen): { readonly id: Uint8Array; readonly newest: number; readonly third: string } {
  const [first, , third] = machines;
  if (first === undefined) throw new Error('a specimen without machines');
  return { id: first.id, newest: first.head.seq, third: third?.hex ?? '' };
}
