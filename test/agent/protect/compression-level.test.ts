import { describe, expect, it } from 'vitest';
import { type CompressionLevel, compressionLevel } from '../../../agent/protect/compression-level.ts';

/** So many segments, one a second, that waited for so much of it. */
function pass(level: CompressionLevel, segments: number, waitedMs: number): number {
  for (let i = 0; i < segments; i++) level.noteSegment(waitedMs, 1000);
  return level.current;
}

describe('the level of compression', () => {
  it('stays what it was configured to be', () => {
    for (const configured of [-7, 0, 1, 19]) expect(pass(compressionLevel(configured), 100, 900)).toBe(configured);
  });

  it('begins with the fastest, and rises step by step while segments wait for the uplink', () => {
    const level = compressionLevel('auto');
    expect(level.current).toBe(1);
    const seen = Array.from({ length: 6 }, () => pass(level, 4, 800));
    expect(seen).toEqual([3, 5, 7, 9, 9, 9]);
  });

  it('falls again when nothing waits for the uplink, and rests in between', () => {
    const level = compressionLevel('auto');
    pass(level, 100, 800);
    expect(pass(level, 4, 150)).toBe(9);
    expect(Array.from({ length: 5 }, () => pass(level, 4, 10))).toEqual([7, 5, 3, 1, 1]);
  });

  it('takes no step on a single segment that waited', () => {
    const level = compressionLevel('auto');
    expect(pass(level, 3, 1000)).toBe(1);
  });
});
