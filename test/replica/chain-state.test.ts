import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EntryBody } from '../../replica/chain-entry.ts';
import { ChainInvalid, ChainState, type EntryEffect, isSummaryDue } from '../../replica/chain-state.ts';
import { type Birth, type Control, encodeControl, parseControl, type Summary } from '../../replica/control.ts';
import { toHex } from '../../replica/encoding.ts';
import { type SegmentId, segmentKey } from '../../replica/names.ts';
import { timesTried } from '../lanes/quick.ts';
import { ChainModel } from './chain-model.ts';
import { filled, machineId } from './specimens.ts';

const noControl: Control = { births: [], deaths: [], summary: null };

/** Through the bytes that an entry would carry, as a reader gets it. */
function summaryBytes(summary: Summary): string {
  return toHex(encodeControl({ ...noControl, summary }, { publish: false, summary: true }));
}

function readBack(summary: Summary): Summary {
  const bytes = Buffer.from(summaryBytes(summary), 'hex');
  const parsed = parseControl(bytes, { publish: false, summary: true }, 'a summary').summary;
  if (parsed === null) throw new Error('no summary');
  return parsed;
}

describe('a chain of legal entries', () => {
  it('amounts to the same from the first entry and from every summary, and to what a plain model says', () => {
    let summaries = 0;
    fc.assert(
      fc.property(fc.array(fc.nat(), { minLength: 150, maxLength: 260, size: 'max' }), fc.nat(), (choices, seed) => {
        const model = new ChainModel(seed);
        const states = [new ChainState()];
        for (const choice of choices) {
          const { entry, control, digest } = model.next(choice);
          for (const state of states) {
            state.apply(entry, control);
            state.setPointDigest(entry.seq, digest);
          }
          const [full, ...resumed] = states.map((state) => summaryBytes(state.summary()));
          for (const other of resumed) expect(other).toBe(full);
          expect(full).toBe(summaryBytes(model.summary()));
          if (!isSummaryDue(entry.seq) || entry.isVoid) continue;
          summaries++;
          states.push(ChainState.fromSummary({ ...entry, digest }, readBack(model.summary())));
        }
      }),
      { numRuns: timesTried(40) },
    );
    expect(summaries).toBeGreaterThan(timesTried(40));
  }, 60_000);
});

const owner = filled(16, 0x01);
const stranger = filled(16, 0x02);
const record = filled(32, 0x03);

/** Builds a chain entry by entry: each call appends one. */
class Story {
  readonly state = new ChainState();

  add(body: EntryBody, change: Partial<EntryEffect> = {}, control: Partial<Control> = {}): this {
    const seq = this.state.seq + 1;
    const tenure = body.type === 'begin' ? seq : this.state.tenure;
    const entry = { machineId, seq, timeMs: seq * 1000, tenure, signerKeyId: owner, isVoid: false, body, ...change };
    this.state.apply(entry, { ...noControl, ...control });
    return this;
  }

  begin(change: Partial<Extract<EntryBody, { type: 'begin' }>> = {}, by: Partial<EntryEffect> = {}): this {
    return this.add({ type: 'begin', adopts: null, epoch: 1, keyRecordDigest: record, ...change }, by);
  }

  publish(
    watermark: number,
    control: Partial<Control> = {},
    change: Partial<EntryEffect> = {},
    epoch = this.state.epoch,
  ): this {
    return this.add(
      { type: 'publish', epoch, watermark, immutableUntilMs: 0, sealedManifest: filled(1, 0) },
      change,
      control,
    );
  }

  prune(...points: number[]): this {
    return this.add({ type: 'prune', points });
  }

  rekey(epoch: number, change: Partial<EntryEffect> = {}): this {
    return this.add({ type: 'rekey', epoch, keyRecordDigest: record }, change);
  }

  lock(untilMs: number, change: Partial<EntryEffect> = {}): this {
    return this.add({ type: 'lock', generation: 1, untilMs }, change);
  }
}

function birth(id: SegmentId, units = 10): Birth {
  return { ...id, size: 1000, units, sha256: filled(32, id.number) };
}
const story = (): Story => new Story();
/** One point, which uses segment 1.1 with its 10 units. */
const published = (): Story =>
  story()
    .begin()
    .publish(1, { births: [birth({ tenure: 1, number: 1 })] });

describe('an entry that breaks a rule is refused:', () => {
  it.each<[string, () => unknown]>([
    ['one that leaves a gap', () => story().begin().lock(1, { seq: 3 })],
    ['one that repeats a number', () => story().begin().lock(1, { seq: 1 })],
    ['a first entry that is no begin', () => story().add({ type: 'lock', generation: 1, untilMs: 1 }, { tenure: 0 })],
    ['a first publish without a begin', () => story().publish(0, {}, { tenure: 0 }, 0)],
    ['one of an older tenure', () => story().begin().begin().lock(1, { tenure: 1 })],
    ['a publish of an older tenure: the fence', () => story().begin().begin().publish(0, {}, { tenure: 1 })],
    ['adoption of tenure 0', () => story().begin({ adopts: 0 })],
    ['adoption of a tenure that it does not follow', () => story().begin().begin().begin({ adopts: 1 })],
    ['adoption of itself', () => story().begin().begin({ adopts: 2 })],
    ['a begin under an older key epoch', () => story().begin({ epoch: 2 }).begin({ epoch: 1 })],
    [
      'a begin that names another key record for the epoch in force',
      () =>
        story()
          .begin()
          .begin({ keyRecordDigest: filled(32, 9) }),
    ],
    [
      'a lock of an older generation',
      () =>
        story()
          .begin()
          .add({ type: 'lock', generation: 2, untilMs: 1 })
          .add({ type: 'lock', generation: 1, untilMs: 2 }),
    ],
    ['a rekey to the epoch in force', () => story().begin().rekey(1)],
    ['a rekey to an older epoch', () => story().begin({ epoch: 3 }).rekey(2)],
    ['a rekey by another agent than the owner', () => story().begin().rekey(2, { signerKeyId: stranger })],
    ['a publish by another agent than the owner', () => story().begin().publish(0, {}, { signerKeyId: stranger })],
    [
      'a publish by the owner of an earlier tenure',
      () => story().begin().begin({}, { signerKeyId: stranger }).publish(0),
    ],
    ['a publish under an older key epoch', () => story().begin().rekey(2).publish(0, {}, {}, 1)],
    ['a publish under an epoch that was never announced', () => story().begin().publish(0, {}, {}, 2)],
    ['a watermark that goes back', () => published().publish(0)],
    [
      'a birth above the new watermark',
      () =>
        story()
          .begin()
          .publish(1, { births: [birth({ tenure: 1, number: 2 })] }),
    ],
    [
      'a birth at or below the last watermark',
      () =>
        story()
          .begin()
          .publish(2)
          .publish(3, { births: [birth({ tenure: 1, number: 2 })] }),
    ],
    [
      'a birth of a tenure that was not adopted',
      () =>
        story()
          .begin()
          .begin()
          .publish(0, { births: [birth({ tenure: 1, number: 1 })] }),
    ],
    [
      'an adopted birth after the first publish',
      () =>
        story()
          .begin()
          .begin({ adopts: 1 })
          .publish(0)
          .publish(0, { births: [birth({ tenure: 1, number: 1 })] }),
    ],
    [
      'an adopted birth at or below the watermark of its tenure',
      () =>
        published()
          .begin({ adopts: 1 })
          .publish(0, { births: [birth({ tenure: 1, number: 1 })] }),
    ],
    [
      'an adopted birth from before the adopted tenure published',
      () =>
        story()
          .begin()
          .begin({ adopts: 1 })
          .publish(0)
          .begin({ adopts: 2 })
          .publish(0, { births: [birth({ tenure: 1, number: 1 })] }),
    ],
    [
      'a birth of an empty segment',
      () =>
        story()
          .begin()
          .publish(1, { births: [birth({ tenure: 1, number: 1 }, 0)] }),
    ],
    [
      'a segment born twice in one publish',
      () =>
        story()
          .begin()
          .publish(1, { births: [birth({ tenure: 1, number: 1 }), birth({ tenure: 1, number: 1 })] }),
    ],
    [
      'deaths in a segment that nobody published',
      () => published().publish(2, { deaths: [{ tenure: 1, number: 2, units: 1 }] }),
    ],
    ['more deaths than units', () => published().publish(1, { deaths: [{ tenure: 1, number: 1, units: 11 }] })],
    [
      'more deaths than units, in two publishes',
      () =>
        published()
          .publish(1, { deaths: [{ tenure: 1, number: 1, units: 6 }] })
          .publish(1, { deaths: [{ tenure: 1, number: 1, units: 5 }] }),
    ],
    ['a prune of the newest point', () => published().prune(2)],
    ['a prune of all points', () => published().publish(1).prune(2, 3)],
    ['a prune of what is no point', () => published().prune(1)],
    ['a prune of a point that is gone', () => published().publish(1).prune(2).prune(2)],
    ['a prune of a point to come', () => published().prune(9)],
  ])('%s', (_, tell) => {
    expect(tell).toThrow(ChainInvalid);
  });
});

describe('an entry that keeps the rules is taken:', () => {
  it.each<[string, () => Story]>([
    ['a publish without births', () => published().publish(1)],
    ['a watermark above all births', () => story().begin().publish(9)],
    [
      'the birth of an adopted segment',
      () =>
        story()
          .begin()
          .begin({ adopts: 1 })
          .publish(0, { births: [birth({ tenure: 1, number: 7 })] }),
    ],
    [
      'the birth of a segment adopted twice over',
      () =>
        story()
          .begin()
          .begin({ adopts: 1 })
          .begin({ adopts: 2 })
          .publish(0, { births: [birth({ tenure: 1, number: 7 })] }),
    ],
    [
      'the birth of an adopted segment above the watermark',
      () =>
        published()
          .begin({ adopts: 1 })
          .publish(0, { births: [birth({ tenure: 1, number: 2 })] }),
    ],
    ['a begin that adopts nothing', () => published().begin().publish(0)],
    [
      'a begin by another agent, and its publish',
      () => published().begin({}, { signerKeyId: stranger }).publish(0, {}, { signerKeyId: stranger }),
    ],
    [
      'a prune and a lock by another agent',
      () =>
        published()
          .publish(1)
          .add({ type: 'prune', points: [2] }, { signerKeyId: stranger })
          .lock(5, { signerKeyId: stranger }),
    ],
    ['a rekey, and a publish under the new epoch', () => published().rekey(5).publish(1)],
    [
      'a begin under a greater key epoch',
      () =>
        published()
          .begin({ epoch: 9, keyRecordDigest: filled(32, 9) })
          .publish(0),
    ],
    [
      'a segment that dies in the publish of its birth',
      () =>
        story()
          .begin()
          .publish(1, { births: [birth({ tenure: 1, number: 1 })], deaths: [{ tenure: 1, number: 1, units: 10 }] }),
    ],
  ])('%s', (_, tell) => {
    const { state } = tell();
    expect(state.newestPoint).not.toBeNull();
    expect(summaryBytes(readBack(state.summary()))).toBe(summaryBytes(state.summary()));
  });

  it('a lock only ever lengthens', () => {
    expect(story().begin().lock(9).lock(5).state.lockUntilMs).toBe(9);
  });
});

describe('a void entry', () => {
  it('takes its place and changes nothing, whatever it says', () => {
    const before = published().publish(1);
    const bytes = summaryBytes(before.state.summary());
    const bodies: readonly EntryBody[] = [
      { type: 'begin', adopts: 99, epoch: 7, keyRecordDigest: record },
      { type: 'publish', epoch: 9, watermark: 0, immutableUntilMs: 0, sealedManifest: filled(1, 0) },
      { type: 'prune', points: [2, 3] },
      { type: 'lock', generation: 9, untilMs: 9 },
      { type: 'rekey', epoch: 0, keyRecordDigest: record },
    ];
    for (const body of bodies) before.add(body, { isVoid: true, tenure: 77, signerKeyId: stranger });
    expect(before.state.seq).toBe(3 + bodies.length);
    expect(summaryBytes({ ...before.state.summary(), points: [] })).toBe(
      summaryBytes({ ...published().publish(1).state.summary(), points: [] }),
    );
    expect(bytes.length).toBeGreaterThan(0);
    expect([...before.state.points.keys()]).toEqual([2, 3]);
  });
});

describe('a segment is listed in summaries', () => {
  const id = { tenure: 1, number: 1 };
  const all = { deaths: [{ ...id, units: 10 }] };
  const listed = (told: Story): readonly string[] => Array.from(told.state.summary().segments, segmentKey);

  it('while something of it is used', () => {
    expect(listed(published().publish(1).prune(2))).toEqual(['1.1']);
  });

  it('while a point from before its death is retained, and no longer', () => {
    const dead = published().publish(1, all);
    expect(dead.state.segments.get('1.1')).toMatchObject({ birth: 2, death: 3, dead: 10 });
    expect(listed(dead)).toEqual(['1.1']);
    expect(listed(dead.prune(2))).toEqual([]);
  });

  it('not because of points from before its birth', () => {
    const told = story()
      .begin()
      .publish(0)
      .publish(1, { births: [birth(id)] })
      .publish(1, all)
      .prune(3);
    expect([...told.state.points.keys()]).toEqual([2, 4]);
    expect(listed(told)).toEqual([]);
  });
});
