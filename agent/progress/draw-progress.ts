import type { Colours } from '../output.ts';
import { cutText, widthOf } from '../text-width.ts';
import type { Progress } from './progress.ts';

/** Progress as text: two rows that fit a terminal, or one line for a log. */

/** From this many columns on, a bar this long. */
const barLengths = [
  [100, 24],
  [72, 16],
  [50, 10],
] as const;
const titleShare = 3;
const titleColumnsMin = 10;
const gap = '  ';
const between = ' · ';
const indent = '  ';

export function progressLine({ title, share = null, facts = [], details = [] }: Progress): string {
  const parts = [...(share === null ? [] : [percent(share)]), ...facts, ...details];
  return parts.length === 0 ? title : `${title}${gap}${parts.join(', ')}`;
}

/** No row is as wide as the terminal: one that wraps can't be rewritten. */
export function progressRows(progress: Progress, terminalColumns: number, colours: Colours): readonly string[] {
  const columns = Math.max(1, terminalColumns - 1);
  const { share = null, facts = [], details = [] } = progress;
  const alone = share === null && facts.length === 0;
  const titleColumns = alone ? columns : Math.max(titleColumnsMin, Math.floor(columns / titleShare));
  const title = cutText(progress.title, titleColumns);
  const bar = share === null ? [] : [drawBar(share, terminalColumns, colours), percent(share).padStart(5)];
  const head = [title, ...bar.filter((part) => part !== '')].join(gap);
  const [first, rest] = fitting(head, facts, gap, columns);
  const [second] = fitting(indent, [...rest, ...details], between, columns);
  return second === indent ? [first] : [first, colours.dim(second)];
}

/** The start with as many of the parts as there is room for, and those that are left. */
function fitting(
  start: string,
  parts: readonly string[],
  separator: string,
  columns: number,
): readonly [string, readonly string[]] {
  let line = start;
  for (const [index, part] of parts.entries()) {
    const longer = line === indent ? line + part : line + separator + part;
    if (widthOf(longer) > columns) return [widthOf(line) > columns ? cutText(line, columns) : line, parts.slice(index)];
    line = longer;
  }
  return [widthOf(line) > columns ? cutText(line, columns) : line, []];
}

function drawBar(share: number, terminalColumns: number, { green, dim }: Colours): string {
  const length = barLengths.find(([columns]) => terminalColumns >= columns)?.[1] ?? 0;
  const full = Math.floor(clamp(share) * length);
  return length === 0 ? '' : green('█'.repeat(full)) + dim('░'.repeat(length - full));
}

/** Rounded down, so that 100 % is the end. */
function percent(share: number): string {
  return `${Math.floor(clamp(share) * 100)} %`;
}

function clamp(share: number): number {
  return Math.min(1, Math.max(0, share));
}
