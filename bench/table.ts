import type { Contestant } from './contestants/contestant.ts';
import { type Row, steps } from './race.ts';
import { formatSpread, median, secondsOf, spreadOf } from './spread.ts';

/** Medians side by side, and how many times as long each takes as the agent. */

const ours = 'failkit';
const titles = ['step', 'compression', 'program', 'seconds', 'CPU seconds', 'of the server', 'stored MiB', '× ours'];

export function raceTable(rows: readonly Row[]): readonly string[] {
  const lines = [lineOf(titles), lineOf(titles.map(() => '---'))];
  const names = [...new Set(rows.map(({ contestant }) => contestant))].sort((a, b) => rank(a) - rank(b));
  for (const step of steps)
    for (const compression of ['fastest', 'off'] as const)
      for (const name of names) {
        const of = (who: string) =>
          rows.filter((row) => row.step === step && row.compression === compression && row.contestant === who);
        const cells = cellsOf(of(name), of(ours));
        if (cells !== null) lines.push(lineOf([step, compression, name, ...cells]));
      }
  return lines;
}

/** Ours first, the others as they come. */
function rank(name: string): number {
  return name === ours ? 0 : 1;
}

function cellsOf(own: readonly Row[], ours: readonly Row[]): readonly string[] | null {
  if (own.length === 0) return null;
  const wall = own.map(({ wallMs }) => wallMs);
  const base = median(ours.map(({ wallMs }) => wallMs));
  return [
    formatSpread(secondsOf(wall)),
    formatSpread(secondsOf(own.map(({ cpuMs }) => cpuMs))),
    formatSpread(secondsOf(own.map(({ serverCpuMs }) => serverCpuMs))),
    (median(own.map(({ storedBytes }) => storedBytes)) / 2 ** 20).toFixed(0),
    Number.isNaN(base) ? '–' : (spreadOf(wall).median / base).toFixed(2),
  ];
}

export function notesOf(contestants: readonly Contestant[]): readonly string[] {
  return contestants.filter(({ note }) => note !== null).map(({ name, note }) => `${name} ${note}`);
}

export function lineOf(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}
