import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ChangeSample, remarkableChange, samplesMax, samplesMin } from '../../../agent/vigilance/change-alarm.ts';

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;
const hourMs = 3_600_000;
const limits = { enabled: true, fromBytes: 512 * mebibyte };
const capacityBytes = 200 * gibibyte;

/** Of a machine of 200 GiB whose data compresses to two fifths. */
function changed(bytes: number, more: Partial<ChangeSample> = {}): ChangeSample {
  const changedBytes = Math.round(bytes);
  return {
    changedBytes,
    storedBytes: Math.round(changedBytes / 2.4),
    elapsedMs: hourMs,
    capacityBytes,
    compressed: true,
    ...more,
  };
}

const incompressible = (bytes: number, more: Partial<ChangeSample> = {}): ChangeSample =>
  changed(bytes, { storedBytes: Math.round(bytes), ...more });

/** A day of hourly syncs about 1 GiB, busier at noon. */
const day = Array.from({ length: 24 }, (_, hour) => changed((0.6 + 0.8 * Math.sin((hour * Math.PI) / 24)) * gibibyte));
const twoDays = [...day, ...day];

describe('what is remarkable about a run', () => {
  it('a disk that is overwritten with what does not compress, in words', () => {
    expect(remarkableChange(incompressible(0.41 * capacityBytes), twoDays, limits)).toBe(
      'changed 41 % of its disks at ratio 1.0; usual is 0.6 % at ratio 2.4',
    );
  });

  it('ransomware that is slower than that, by what it does to the ratio', () => {
    expect(remarkableChange(incompressible(6 * gibibyte), twoDays, limits)).toMatch(/at ratio 1\.0; usual is/);
    expect(remarkableChange(changed(6 * gibibyte), twoDays, limits)).toBeNull();
  });

  it('a runaway job that writes what compresses well', () => {
    expect(remarkableChange(changed(80 * gibibyte, { storedBytes: gibibyte }), twoDays, limits)).toMatch(
      /^changed 40 %/,
    );
  });

  it('not the first run after a weekend without one, nor an update three times a busy hour', () => {
    expect(remarkableChange(changed(20 * gibibyte, { elapsedMs: 64 * hourMs }), twoDays, limits)).toBeNull();
    expect(remarkableChange(changed(4.2 * gibibyte), twoDays, limits)).toBeNull();
    expect(remarkableChange(changed(4.2 * gibibyte, { storedBytes: 3 * gibibyte }), twoDays, limits)).toBeNull();
  });

  it('not a sync half a minute after another one', () => {
    expect(remarkableChange(changed(0.6 * gibibyte, { elapsedMs: 30_000 }), twoDays, limits)).toBeNull();
  });

  it('not what is usual of a machine that always stores what does not compress', () => {
    const videos = twoDays.map(({ changedBytes }) => incompressible(changedBytes));
    expect(remarkableChange(incompressible(6 * gibibyte), videos, limits)).toBeNull();
    expect(remarkableChange(incompressible(80 * gibibyte), videos, limits)).not.toBeNull();
  });

  it('not what a small machine does, however far from usual', () => {
    const quiet = twoDays.map(({ changedBytes }) => changed(changedBytes / 10_000));
    const small = { capacityBytes: 4 * gibibyte };
    expect(remarkableChange(incompressible(511 * mebibyte, small), quiet, limits)).toBeNull();
    expect(remarkableChange(incompressible(513 * mebibyte, small), quiet, limits)).not.toBeNull();
    expect(remarkableChange(incompressible(513 * mebibyte), quiet, limits), 'of a large one a trifle').toBeNull();
  });

  it('nothing before there is enough history, nor when it is switched off', () => {
    const attack = incompressible(0.9 * capacityBytes);
    for (let runs = 0; runs < samplesMin; runs++)
      expect(remarkableChange(attack, twoDays.slice(0, runs), limits)).toBeNull();
    expect(remarkableChange(attack, twoDays.slice(0, samplesMin), limits)).not.toBeNull();
    expect(remarkableChange(attack, twoDays, { ...limits, enabled: false })).toBeNull();
  });

  it('tells the rate alone where compression is off', () => {
    const plain = { compressed: false };
    const history = twoDays.map(({ changedBytes }) => incompressible(changedBytes, plain));
    expect(remarkableChange(incompressible(6 * gibibyte, plain), history, limits)).toBeNull();
    expect(remarkableChange(incompressible(0.41 * capacityBytes, plain), history, limits)).toBe(
      'changed 41 % of its disks; usual is 0.6 %',
    );
  });

  it('is not hidden by a few odd runs before, nor by a clock that jumped', () => {
    const odd = [...twoDays.slice(0, 40), ...Array.from({ length: 8 }, () => incompressible(0.5 * capacityBytes))];
    const attack = incompressible(0.41 * capacityBytes);
    expect(remarkableChange(attack, odd, limits)).not.toBeNull();
    for (const elapsedMs of [-5 * hourMs, 0, 365 * 24 * hourMs])
      expect(remarkableChange({ ...attack, elapsedMs }, twoDays, limits)).not.toBeNull();
  });

  it('no run that is like the others, whatever they are like', () => {
    const usual = fc.record({
      bytes: fc.integer({ min: 1, max: 50 * gibibyte }),
      share: fc.double({ min: 0.05, max: 1, noNaN: true }),
      spread: fc.array(fc.double({ min: 0.5, max: 2, noNaN: true }), { minLength: samplesMin, maxLength: samplesMax }),
      next: fc.double({ min: 0.2, max: 1.9, noNaN: true }),
    });
    fc.assert(
      fc.property(usual, ({ bytes, share, spread, next }) => {
        const of = (factor: number) => changed(bytes * factor, { storedBytes: Math.round(bytes * factor * share) });
        const sorted = spread.map(of).sort((a, b) => a.changedBytes - b.changedBytes);
        const middle = sorted[sorted.length >> 1]?.changedBytes ?? 0;
        fc.pre(bytes * next <= 2 * middle);
        expect(remarkableChange(of(next), spread.map(of), limits)).toBeNull();
      }),
    );
  });

  it('no run of a machine that never changes anything is the reason of an error', () => {
    const none = Array.from({ length: 10 }, () => changed(0, { capacityBytes: 0 }));
    expect(remarkableChange(changed(0, { capacityBytes: 0 }), none, limits)).toBeNull();
    expect(remarkableChange(incompressible(gibibyte), none, limits)).toBe(null);
    expect(remarkableChange(incompressible(0.5 * capacityBytes), none, limits)).toBe(
      'changed 50 % of its disks at ratio 1.0; usual is 0 %',
    );
  });
});
