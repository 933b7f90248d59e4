import fc from 'fast-check';
import type { ModelDiskStyle } from '../fakes/model-disk.ts';

/** What may happen to a machine and to its agent. Plain data, so that a failing history can be read, shrunk and kept. */
export type Step = GuestStep | HostStep | RunStep;

/** `disk` counts round the disks that there are, `at` is in parts of 10,000 of the disk, so that every history makes sense. */
export type GuestStep =
  | { readonly do: 'write'; readonly disk: number; readonly at: number; readonly length: number; readonly fill: Fill }
  | { readonly do: 'discard'; readonly disk: number; readonly at: number; readonly length: number }
  | { readonly do: 'resize'; readonly disk: number; readonly bytes: number }
  | { readonly do: 'add-disk'; readonly bytes: number; readonly style: ModelDiskStyle }
  | { readonly do: 'remove-disk' | 'exclude-or-include'; readonly disk: number }
  | { readonly do: 'attach'; readonly name: 'machine.xml' | 'nvram'; readonly bytes: number; readonly seed: number }
  | { readonly do: 'lose-tracking'; readonly disk: number; readonly afterExtents: number };

/** `same` writes what is there already: changed for the tracker, unchanged for us. */
export type Fill =
  | { readonly kind: 'random' | 'text'; readonly seed: number }
  | { readonly kind: 'zero' }
  | { readonly kind: 'same' };

export type HostStep =
  | { readonly do: 'wait'; readonly days: number }
  | { readonly do: 'lose-state' | 'copy-state' | 'put-back-state' };

export interface RunStep {
  readonly do: 'run';
  readonly resync: boolean;
  readonly access: 'full' | 'write-only';
  /** The call to store or source from which on it goes wrong; null: it does not. */
  readonly fault: Fault | null;
}

/**
 * `cancel`: the run is told to stop. `kill`: the process dies, and its state is as it was at that moment. `lost` and `unanswered`: a request
 * gets no answer, and was not or was carried out. `vanish`: the disk can't be read.
 */
export interface Fault {
  readonly call: number;
  /** Which calls count: chains grow, so that only puts have the same numbers in every run. */
  readonly of: 'calls' | 'puts';
  readonly how: 'cancel' | 'kill' | 'lost' | 'unanswered' | 'vanish';
}

const block = 65_536;
const mebibyte = 2 ** 20;
/** Disks with more blocks than this get larger ones: 10 MiB. */
export const blocksMax = 160;

const anyDisk = fc.nat({ max: 3 });
const anyAt = fc.oneof(fc.nat({ max: 9_999 }), fc.constantFrom(0, 9_999, 5_000));
const anyLength = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 3 * block }) },
  { weight: 1, arbitrary: fc.constantFrom(1, block - 1, block, block + 1, 4 * block, 4 * mebibyte) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 2 * mebibyte }) },
);
/** Near the ends of leaves, levels and block sizes, or anywhere. */
const anyCapacity = fc.oneof(
  { weight: 2, arbitrary: fc.integer({ min: 100_000, max: 2 * mebibyte }) },
  { weight: 1, arbitrary: fc.integer({ min: mebibyte, max: 20 * mebibyte }) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(
        fc.constantFrom(1, 2, 63, 64, 65, 66, 128, 129, blocksMax, blocksMax + 1),
        fc.constantFrom(-block + 1, -1, 0, 1, 512),
      )
      .map(([blocks, more]) => blocks * block + more),
  },
);
const anySeed = fc.nat({ max: 1_000 });
const anyFill: fc.Arbitrary<Fill> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('random' as const), seed: anySeed }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('text' as const), seed: anySeed }) },
  { weight: 1, arbitrary: fc.constantFrom<Fill>({ kind: 'zero' }, { kind: 'same' }) },
);
const anyStyle: fc.Arbitrary<ModelDiskStyle> = fc.record({
  grain: fc.constantFrom(512, 4_099, 60_000, block),
  zeros: fc.constantFrom('left-out', 'listed', 'as-data'),
  tracks: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
  overReports: fc.boolean(),
});

const anyWrite: fc.Arbitrary<GuestStep> = fc.record({
  do: fc.constant('write' as const),
  disk: anyDisk,
  at: anyAt,
  length: anyLength,
  fill: anyFill,
});

const anyGuestStep: fc.Arbitrary<GuestStep> = fc.oneof(
  { weight: 12, arbitrary: anyWrite },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('discard' as const), disk: anyDisk, at: anyAt, length: anyLength }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('resize' as const), disk: anyDisk, bytes: anyCapacity }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('add-disk' as const), bytes: anyCapacity, style: anyStyle }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('remove-disk' as const, 'exclude-or-include' as const), disk: anyDisk }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('attach' as const),
      name: fc.constantFrom('machine.xml' as const, 'nvram' as const),
      bytes: fc.constantFrom(0, 1, 5_000, 262_144, 262_145, 600_000),
      seed: anySeed,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('lose-tracking' as const),
      disk: anyDisk,
      afterExtents: fc.nat({ max: 3 }),
    }),
  },
);

const anyHostStep: fc.Arbitrary<HostStep> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), days: fc.constantFrom(1, 31) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('lose-state' as const, 'copy-state' as const, 'put-back-state' as const),
    }),
  },
);

const anyFault: fc.Arbitrary<Fault> = fc.oneof(
  fc.record({
    call: fc.oneof(fc.nat({ max: 25 }), fc.integer({ min: 15, max: 60 }), fc.nat({ max: 120 })),
    of: fc.constant('calls' as const),
    how: fc.constantFrom('cancel', 'kill', 'lost', 'unanswered', 'vanish'),
  }),
  fc.record({
    call: fc.oneof(fc.nat({ max: 4 }), fc.nat({ max: 20 })),
    of: fc.constant('puts' as const),
    how: fc.constantFrom('cancel', 'kill', 'lost', 'unanswered'),
  }),
);

const anyRun: fc.Arbitrary<RunStep> = fc.record({
  do: fc.constant('run' as const),
  resync: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  access: fc.oneof(
    { weight: 3, arbitrary: fc.constant('full' as const) },
    { weight: 1, arbitrary: fc.constant('write-only' as const) },
  ),
  fault: fc.oneof({ weight: 2, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: anyFault }),
});

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: anyGuestStep },
  { weight: 2, arbitrary: anyHostStep },
  { weight: 5, arbitrary: anyRun },
);

export interface History {
  readonly disks: readonly { readonly bytes: number; readonly style: ModelDiskStyle }[];
  readonly steps: readonly Step[];
}

/** Begins with something on the disks. */
export function anyHistory(stepsMax: number): fc.Arbitrary<History> {
  const disks = fc.array(fc.record({ bytes: anyCapacity, style: anyStyle }), { minLength: 1, maxLength: 3 });
  const writes = fc.array(anyWrite, { minLength: 1, maxLength: 6 });
  const steps = fc.array(anyStep, { minLength: 3, maxLength: stepsMax, size: 'max' });
  return fc.tuple(disks, writes, steps).map(([some, first, then]) => ({ disks: some, steps: [...first, ...then] }));
}
