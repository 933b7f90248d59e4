import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import type { ChainEntry } from '../../replica/chain-entry.ts';
import { encodeEntry, parseEntry } from '../../replica/chain-entry.ts';
import {
  type Control,
  type ControlShape,
  encodeControl,
  parseControl,
  type SegmentLife,
} from '../../replica/control.ts';
import { ControlTampered, placeControl, readControl } from '../../replica/control-object.ts';
import { toHex } from '../../replica/encoding.ts';
import { compareSegments, controlName, segmentKey } from '../../replica/names.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { anyNumber, bytesOf } from './arbitrary.ts';
import { expectStrict, joined, refusal } from './damage.ts';
import { agentKey, entryFields, filled, machineId, repositoryId } from './specimens.ts';

const signal = new AbortController().signal;

const anyLife: fc.Arbitrary<SegmentLife> = fc
  .record({
    tenure: fc.nat({ max: 3 }),
    number: fc.nat({ max: 3 }),
    size: anyNumber,
    units: fc.integer({ min: 1, max: 500 }),
    dead: fc.nat({ max: 500 }),
    birth: anyNumber,
    death: fc.integer({ min: 1 }),
    sha256: bytesOf(32),
  })
  .map((life) => (life.dead >= life.units ? { ...life, dead: life.units } : { ...life, death: 0 }));

const anyControl: fc.Arbitrary<Control> = fc.record({
  births: sorted(
    anyLife.map(({ tenure, number, size, units, sha256 }) => ({ tenure, number, size, units, sha256 })),
    segmentKey,
    compareSegments,
  ),
  deaths: sorted(
    anyLife.map(({ tenure, number, units }) => ({ tenure, number, units })),
    segmentKey,
    compareSegments,
  ),
  summary: fc.record({
    tenure: anyNumber,
    ownerKeyId: bytesOf(16),
    hasPublished: fc.boolean(),
    watermark: anyNumber,
    epochs: sorted(
      fc.record({ epoch: fc.integer({ min: 1, max: 99_999_999 }), keyRecordDigest: bytesOf(32) }),
      (e) => `${e.epoch}`,
      (a, b) => a.epoch - b.epoch,
      1,
    ),
    adopted: sorted(
      fc.record({ tenure: anyNumber, watermark: anyNumber }),
      (a) => `${a.tenure}`,
      (a, b) => a.tenure - b.tenure,
    ),
    lockGeneration: anyNumber,
    lockUntilMs: anyNumber,
    points: sorted(
      fc.record({ seq: anyNumber, timeMs: anyNumber, digest: bytesOf(32) }),
      (p) => `${p.seq}`,
      (a, b) => a.seq - b.seq,
    ),
    segments: sorted(anyLife, segmentKey, compareSegments),
  }),
});

function sorted<T>(
  item: fc.Arbitrary<T>,
  key: (item: T) => string,
  compare: (a: T, b: T) => number,
  minLength = 0,
): fc.Arbitrary<readonly T[]> {
  return fc.uniqueArray(item, { minLength, maxLength: 5, selector: key }).map((list) => list.sort(compare));
}

/** Long lists are decoded as they are walked. */
function unfolded({ births, deaths, summary }: Control): Control {
  const segments = summary === null ? [] : [...summary.segments];
  return { births: [...births], deaths: [...deaths], summary: summary && { ...summary, segments } };
}

describe('control data', () => {
  const shapes: readonly ControlShape[] = [true, false].flatMap((publish) =>
    [true, false].map((summary) => ({ publish, summary })),
  );
  const shaped = (control: Control, shape: ControlShape): Control => ({
    births: shape.publish ? control.births : [],
    deaths: shape.publish ? control.deaths : [],
    summary: shape.summary ? control.summary : null,
  });

  it('comes back as it was written, in every shape', () => {
    fc.assert(
      fc.property(anyControl, fc.constantFrom(...shapes), (control, shape) => {
        const value = shaped(control, shape);
        const bytes = encodeControl(value, shape);
        expect(unfolded(parseControl(bytes, shape, 'control'))).toEqual(value);
        expect(toHex(encodeControl(parseControl(bytes, shape, 'control'), shape))).toBe(toHex(bytes));
      }),
    );
  });

  it('is read as another canonical content or refused when it was damaged', () => {
    fc.assert(
      fc.property(anyControl, fc.constantFrom(...shapes), (control, shape) => {
        expectStrict(
          encodeControl(shaped(control, shape), shape),
          (bytes) => parseControl(bytes, shape, 'control'),
          (value) => encodeControl(value, shape),
        );
      }),
      { numRuns: 6 },
    );
  });

  const publish: ControlShape = { publish: true, summary: false };
  const birth = { tenure: 1, number: 2, size: 100, units: 3, sha256: filled(32, 1) };
  it.each<[string, Partial<Control>]>([
    ['births out of order', { births: [birth, { ...birth, number: 1 }] }],
    ['a segment born twice', { births: [birth, birth] }],
    [
      'deaths out of order',
      {
        deaths: [
          { tenure: 2, number: 1, units: 1 },
          { tenure: 1, number: 1, units: 1 },
        ],
      },
    ],
    ['a death of nothing', { deaths: [{ tenure: 1, number: 1, units: 0 }] }],
  ])('with %s is refused', (what, change) => {
    const bytes = encodeControl({ births: [], deaths: [], summary: null, ...change }, publish);
    expect(refusal(() => parseControl(bytes, publish, 'control'), what)).toBe('FORMAT_INVALID');
  });

  const whole: ControlShape = { publish: false, summary: true };
  const summary: NonNullable<Control['summary']> = {
    ...{
      tenure: 1,
      ownerKeyId: filled(16, 1),
      hasPublished: true,
      watermark: 3,
      adopted: [],
      lockGeneration: 0,
      lockUntilMs: 0,
    },
    ...{ epochs: [{ epoch: 1, keyRecordDigest: filled(32, 2) }], points: [], segments: [] },
  };
  const life: SegmentLife = { ...birth, dead: 1, birth: 5, death: 0 };
  it.each<[string, Partial<NonNullable<Control['summary']>>]>([
    ['no key epochs', { epochs: [] }],
    ['key epoch 0', { epochs: [{ epoch: 0, keyRecordDigest: filled(32, 2) }] }],
    ['a key epoch that no name can hold', { epochs: [{ epoch: 100_000_000, keyRecordDigest: filled(32, 2) }] }],
    ['points out of order', { points: [6, 5].map((seq) => ({ seq, timeMs: 0, digest: filled(32, 0) })) }],
    [
      'adopted tenures out of order',
      {
        adopted: [
          { tenure: 4, watermark: 0 },
          { tenure: 4, watermark: 1 },
        ],
      },
    ],
    ['segments out of order', { segments: [life, { ...life, tenure: 0 }] }],
    ['more dead units than units', { segments: [{ ...life, dead: 4, death: 9 }] }],
    ['a death before all units are dead', { segments: [{ ...life, death: 9 }] }],
    ['a segment that is all dead but has no death', { segments: [{ ...life, dead: 3 }] }],
  ])('with %s in its summary is refused', (what, change) => {
    const bytes = encodeControl({ births: [], deaths: [], summary: { ...summary, ...change } }, whole);
    expect(refusal(() => parseControl(bytes, whole, 'control'), what)).toBe('FORMAT_INVALID');
  });
});

describe('a control object', () => {
  const owner = { repositoryId, machineId, seq: 1000 };
  const births = Array.from({ length: 2000 }, (_, i) => ({
    tenure: 12,
    number: i + 1,
    size: 8_388_608,
    units: 128,
    sha256: Uint8Array.from(sha256(Uint8Array.of(i & 255, i >> 8))),
  }));
  const large: Control = { births, deaths: [], summary: null };

  async function placed(control: Control): Promise<{ store: MemoryStore; entry: ChainEntry }> {
    const store = new MemoryStore();
    const at = await placeControl(openMemoryTarget(store), owner, true, control, signal);
    const bytes = encodeEntry(entryFields('publish', { control: at }), agentKey);
    return { store, entry: parseEntry(repositoryId, machineId, 1000, bytes) };
  }
  const read = (store: MemoryStore, entry: ChainEntry) => readControl(openMemoryTarget(store), entry, signal);

  it('holds what is too long for the entry, and the entry holds the rest itself', async () => {
    const { store, entry } = await placed(large);
    expect(entry.control).toMatchObject({ sha256: expect.any(Uint8Array) });
    expect(unfolded(await read(store, entry))).toEqual(large);
    const small = { ...large, births: births.slice(0, 3) };
    const inline = await placed(small);
    expect(inline.entry.control).toMatchObject({ inline: expect.any(Uint8Array) });
    expect(unfolded(await read(inline.store, inline.entry))).toEqual(small);
  });

  it('is refused when it was altered, cut, lengthened or replaced by another object', async () => {
    const { store, entry } = await placed(large);
    if (!('sha256' in entry.control)) return expect.fail('inline');
    const name = controlName(machineId, 1000, entry.control.sha256);
    const object = await openMemoryTarget(store).get(name, null, signal);
    const flipped = Uint8Array.from(object).fill(0xff, 70_000, 70_001);
    for (const bytes of [flipped, object.slice(0, -1), joined(object.slice(0, 100)), joined([...object], [0])]) {
      const other = openMemoryTarget(new MemoryStore());
      await other.putIfAbsent(name, bytes, { sha256: sha256(bytes) }, signal);
      await expect(readControl(other, entry, signal)).rejects.toThrow(ControlTampered);
    }
  });

  it('is refused when its header names another entry, whoever signed for it', async () => {
    const { store } = await placed(large);
    const other = await placeControl(openMemoryTarget(store), { ...owner, seq: 1001 }, true, large, signal);
    if (!('sha256' in other)) return expect.fail('inline');
    const object = await openMemoryTarget(store).get(controlName(machineId, 1001, other.sha256), null, signal);
    await openMemoryTarget(store).putIfAbsent(
      controlName(machineId, 1000, other.sha256),
      object,
      { sha256: sha256(object) },
      signal,
    );
    const bytes = encodeEntry(entryFields('publish', { control: other }), agentKey);
    await expect(read(store, parseEntry(repositoryId, machineId, 1000, bytes))).rejects.toThrow(
      expect.objectContaining({ code: 'FORMAT_INVALID', offset: 0 }),
    );
  });

  it('has nothing to say where the entry neither publishes nor sums up', async () => {
    const store = new MemoryStore();
    const fields = entryFields('lock', { control: { inline: Uint8Array.of(0) } });
    const entry = parseEntry(repositoryId, machineId, 1000, encodeEntry(fields, agentKey));
    await expect(read(store, entry)).rejects.toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }));
  });
});
