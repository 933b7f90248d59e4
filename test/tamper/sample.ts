import { chainEntryName, segmentName } from '../../replica/names.ts';
import type { Thoroughness } from './manipulations.ts';
import { kindOf } from './object-fields.ts';
import type { Specimen } from './specimen.ts';

/** How much of a specimen is looked at. */

/** Every byte of the small objects of the first machine, spots of everything else. */
export function thorough(specimen: Specimen): Thoroughness {
  const [first, second, third] = specimen.machines.map(({ hex }) => hex);
  return {
    everything: true,
    bytesPerField: (name) => {
      const size = specimen.objects.get(name)?.length ?? 0;
      const [, machine] = name.split('/');
      const isFiller = kindOf(name) === 'chain entry' && size < 210 && !/99[28][4-8]$/.test(name);
      if (machine === third) return kindOf(name) === 'control object' ? 40 : null;
      if (isFiller) return null;
      if (machine === second || kindOf(name) === 'segment') return 4;
      return machine === first || !name.startsWith('machines/') ? size : null;
    },
  };
}

/** One byte of each field of one object of each kind. */
export function quick(specimen: Specimen): Thoroughness {
  const [first] = specimen.machines;
  const newest = chainEntryName(first?.id ?? new Uint8Array(), first?.head.seq ?? 0);
  const segments = segmentName(first?.id ?? new Uint8Array(), { tenure: (first?.head.seq ?? 0) - 1, number: 1 });
  const taken = [
    newest,
    'repository',
    `machines/${first?.hex}/keys/00000001/0000`,
    segments,
    segments.replace(/1$/, '2'),
  ];
  return {
    everything: false,
    bytesPerField: (name) => (taken.includes(name) || name.startsWith('trust/') ? 1 : null),
  };
}
