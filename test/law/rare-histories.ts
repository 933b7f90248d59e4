import type { ModelDiskStyle } from '../fakes/model-disk.ts';
import type { GuestStep, History, RunStep, Step } from './history.ts';

/** Histories that random ones seldom come to: tried first, every time. */

const block = 65_536;
const style: ModelDiskStyle = { grain: 4_099, zeros: 'left-out', tracks: true, overReports: false };
const run: RunStep = { do: 'run', resync: false, access: 'full', fault: null };

function write(at: number, length: number, seed: number): GuestStep {
  return { do: 'write', disk: 0, at, length, fill: { kind: 'random', seed } };
}

/** Leaves beyond the new end go, and do not come back from the dead; first within one map level, then across two. */
const shrinking: History = {
  disks: [{ bytes: 160 * block, style }],
  steps: [
    write(0, 1_000_000, 1),
    write(5_000, 300_000, 2),
    write(9_800, 300_000, 3),
    run,
    { do: 'resize', disk: 0, bytes: 66 * block - 1 },
    run,
    { do: 'resize', disk: 0, bytes: 160 * block },
    run,
    { do: 'resize', disk: 0, bytes: 3 * block + 1 },
    run,
    { do: 'resize', disk: 0, bytes: 161 * block },
    run,
  ],
};

/** What an interrupted run has sent is not what stands on the disk when the next one comes. */
function changedMeanwhile(call: number): History {
  return {
    disks: [{ bytes: 30 * block, style }],
    steps: [
      write(0, 1_500_000, 1),
      { ...run, fault: { call, of: 'puts', how: 'lost' } },
      write(0, 700_000, 2),
      { do: 'discard', disk: 0, at: 5_000, length: 300_000 },
      run,
      write(5_000, 1_000_000, 3),
      { ...run, fault: { call: call + 1, of: 'puts', how: 'kill' } },
      write(6_000, 200_000, 4),
      run,
    ],
  };
}

/** A new host that may not decrypt; then one that may, under the next key epoch. */
const newHosts: History = {
  disks: [{ bytes: 70 * block + 5, style }],
  steps: [
    write(0, 400_000, 1),
    { do: 'attach', name: 'nvram', bytes: 300_000, seed: 1 },
    run,
    { do: 'lose-state' },
    { ...run, access: 'write-only' },
    write(9_000, 100_000, 2),
    { ...run, access: 'write-only' },
    { do: 'wait', days: 31 },
    { do: 'lose-state' },
    run,
    { do: 'wait', days: 31 },
    write(9_500, 100_000, 3),
    run,
  ],
};

/** Tracking is lost after extents were taken from it, and blocks changed that nobody reported. */
const trackingLost: History = {
  disks: [{ bytes: 100 * block, style }],
  steps: [
    write(0, 500_000, 1),
    run,
    write(0, 70_000, 2),
    write(5_000, 70_000, 3),
    write(9_000, 70_000, 4),
    { do: 'lose-tracking', disk: 0, afterExtents: 2 },
    run,
    { do: 'discard', disk: 0, at: 0, length: 600_000 },
    { do: 'lose-tracking', disk: 0, afterExtents: 0 },
    run,
  ],
};

/** Each put of a small run goes wrong: key record, begin, segment, publish. */
const puts: History = {
  disks: [{ bytes: 2 * block, style }],
  steps: (['unanswered', 'lost', 'kill', 'cancel'] as const).flatMap((how, i) =>
    [0, 1, 2, 3].flatMap((call): readonly Step[] => [
      write(0, 1_000, 10 * i + call),
      { ...run, fault: { call, of: 'puts', how } },
    ]),
  ),
};

/** The guest gives back blocks of a full leaf, of the next one, and of the last; then all of it. */
const trimmed: History = {
  disks: [{ bytes: 160 * block, style }],
  steps: [
    write(0, 70 * block, 1),
    write(9_000, 10 * block, 2),
    run,
    { do: 'discard', disk: 0, at: 0, length: 20 * block },
    run,
    { do: 'discard', disk: 0, at: 4_100, length: 3 * block },
    { do: 'discard', disk: 0, at: 9_100, length: 3 * block },
    run,
    { do: 'discard', disk: 0, at: 0, length: 160 * block },
    run,
  ],
};

/** Smaller, and as large as before, between two runs; then what stands at the end is new, and tracking names it. */
const shrunkUnseen: History = {
  disks: [{ bytes: 160 * block, style }],
  steps: [
    write(0, 300_000, 1),
    write(9_000, 300_000, 2),
    run,
    { do: 'resize', disk: 0, bytes: 100_000 },
    { do: 'resize', disk: 0, bytes: 160 * block },
    run,
    write(8_000, 500_000, 3),
    run,
    { do: 'resize', disk: 0, bytes: 20 * block },
    { do: 'resize', disk: 0, bytes: 160 * block },
    write(9_900, 100_000, 4),
    write(8_050, 1_000, 5),
    { ...run, fault: { call: 1, of: 'puts', how: 'kill' } },
    write(8_000, 500_000, 6),
    run,
    run,
  ],
};

export const rareHistories: readonly History[] = [
  shrinking,
  ...[4, 8, 12].map(changedMeanwhile),
  newHosts,
  trackingLost,
  trimmed,
  shrunkUnseen,
  puts,
];
