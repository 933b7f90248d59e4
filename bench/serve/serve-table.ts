import { formatSpread, median, spreadOf } from '../spread.ts';
import { lineOf } from '../table.ts';
import type { BootRow } from './measure-boot.ts';
import { type ReadRow, randomReads, sequentialBytes } from './measure-reads.ts';

const mebibyte = 2 ** 20;
const readTitles = [
  'program',
  'round trip ms',
  'opens s',
  'random 4 KiB ms',
  'fetched KiB each',
  'in a row MiB/s',
  'fetched ÷ read',
];
const bootTitles = [
  'round trip ms',
  'local file s',
  'served s',
  'served ÷ local',
  'guest read MiB',
  'fetched MiB',
  'fetched ÷ read',
];

export function readTable(rows: readonly ReadRow[]): readonly string[] {
  const groups = Map.groupBy(rows, ({ program, roundTripMs }) => `${program} | ${roundTripMs}`);
  return [
    lineOf(readTitles),
    lineOf(readTitles.map(() => '---')),
    ...[...groups].map(([name, own]) => {
      const of = (value: (row: ReadRow) => number, digits: number) => formatSpread(spreadOf(own.map(value)), digits);
      return lineOf([
        name,
        of(({ openMs }) => openMs / 1000, 2),
        of(({ randomMs }) => randomMs, 2),
        of(({ randomFetchedBytes }) => randomFetchedBytes / randomReads / 1024, 0),
        of(({ sequentialMs }) => sequentialBytes / mebibyte / (sequentialMs / 1000), 0),
        of(({ sequentialFetchedBytes }) => sequentialFetchedBytes / sequentialBytes, 2),
      ]);
    }),
  ];
}

export function bootTable(rows: readonly BootRow[]): readonly string[] {
  return [
    lineOf(bootTitles),
    lineOf(bootTitles.map(() => '---')),
    ...[...Map.groupBy(rows, ({ roundTripMs }) => roundTripMs)].map(([roundTripMs, own]) => {
      const of = (value: (row: BootRow) => number, digits = 1) => formatSpread(spreadOf(own.map(value)), digits);
      return lineOf([
        `${roundTripMs}`,
        of(({ localMs }) => localMs / 1000),
        of(({ servedMs }) => servedMs / 1000),
        bootRatios(own).time.toFixed(2),
        of(({ guestReadBytes }) => guestReadBytes / mebibyte),
        of(({ fetchedBytes }) => fetchedBytes / mebibyte),
        bootRatios(own).bytes.toFixed(2),
      ]);
    }),
  ];
}

/** Served beside local, and fetched beside what the guest read: of the medians. */
export function bootRatios(rows: readonly BootRow[]): { readonly time: number; readonly bytes: number } {
  const of = (value: (row: BootRow) => number) => median(rows.map(value));
  return {
    time: of(({ servedMs }) => servedMs) / of(({ localMs }) => localMs),
    bytes: of(({ fetchedBytes }) => fetchedBytes) / of(({ guestReadBytes }) => guestReadBytes),
  };
}
