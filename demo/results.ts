import { formatBytes, formatDuration } from '../agent/quantities.ts';
import { objectsOf } from './bucket-folder.ts';
import type { TakenPoint } from './chapters/protect.ts';
import { imageBytes } from './disk-image.ts';
import type { RestoredPoint } from './failkit-process.ts';
import type { Site } from './site.ts';

const mebibyte = 2 ** 20;

const right = (title: string) => ({ title, align: 'right' as const });
const columns = [
  right('point'),
  { title: 'after' },
  right('read'),
  right('changed'),
  right('sent'),
  right('zstd'),
  right('RPO'),
  right('took'),
  right('speed'),
];

/** One line for each recovery point, and what it all came to. */
export function showResults(
  { screen, bucket }: Site,
  taken: readonly TakenPoint[],
  restores: readonly RestoredPoint[],
): void {
  screen.table(columns, taken.map(rowOf));
  const bytes = objectsOf(bucket).reduce((sum, object) => sum + object.bytes, 0);
  const written = restores.reduce((sum, { writtenBytes }) => sum + writtenBytes, 0);
  const durationMs = restores.reduce((sum, restore) => sum + restore.durationMs, 0);
  screen.note('Read, changed, sent in MiB; speed in MiB of disk a second, start to publish.');
  screen.note('A raw image has no changed block tracking: each run reads it all, compares,');
  screen.note('and sends what differs. RPO: from the snapshot before to this publish.');
  screen.note(
    `${taken.length} points, each ${formatBytes(imageBytes)}, in ${formatBytes(bytes)} of bucket; restored at ${inMebibytes((written / durationMs) * 1000)} MiB/s.`,
  );
}

function rowOf({ why, run }: TakenPoint): readonly string[] {
  return [
    String(run.point),
    why,
    inMebibytes(run.readBytes),
    inMebibytes(run.changedBytes),
    inMebibytes(run.uploadedBytes),
    run.uploadedBytes === 0 ? '–' : `${(run.changedBytes / run.uploadedBytes).toFixed(1)}×`,
    run.rpoMs === null ? '–' : formatDuration(run.rpoMs),
    formatDuration(run.durationMs),
    inMebibytes((run.readBytes / run.durationMs) * 1000),
  ];
}

function inMebibytes(bytes: number): string {
  return (bytes / mebibyte).toFixed(bytes < 100 * mebibyte ? 1 : 0);
}
