import { cutText, widthOf } from './text-width.ts';

export interface Column {
  readonly title: string;
  /** Numbers and sizes stand on the right. */
  readonly align?: 'left' | 'right';
  /** Where there is no room, columns go; the highest first. Without it a column stays. */
  readonly spare?: number;
  /** Where there is still no room, its cells are cut. */
  readonly cut?: boolean;
}

const gap = '  ';
const cutColumnsMin = 10;

/** Lines with aligned columns, the titles first. Cells may hold colours. `room`: of a terminal; null: as wide as it gets. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  room: number | null = null,
): readonly string[] {
  const titles = columns.map((column) => column.title);
  const cells = [titles, ...rows];
  const widths = columns.map((_, index) => Math.max(...cells.map((row) => widthOf(row[index] ?? ''))));
  const shown = room === null ? columns.map((_, index) => index) : columnsThatFit(columns, widths, room);
  const excess = room === null ? 0 : Math.max(0, totalOf(shown, widths) - room);
  const widthAt = (index: number): number => {
    const width = widths[index] ?? 0;
    return columns[index]?.cut === true ? Math.max(Math.min(width, cutColumnsMin), width - excess) : width;
  };
  return cells.map((row) =>
    shown
      .map((index) => pad(row[index] ?? '', widthAt(index), columns[index]?.align ?? 'left'))
      .join(gap)
      .trimEnd(),
  );
}

function columnsThatFit(columns: readonly Column[], widths: readonly number[], room: number): readonly number[] {
  const spare = columns
    .map(({ spare: rank = 0 }, index) => ({ rank, index }))
    .filter(({ rank }) => rank > 0)
    .sort((a, b) => b.rank - a.rank);
  let shown = columns.map((_, index) => index);
  for (const { index } of spare) {
    if (totalOf(shown, widths) <= room) break;
    shown = shown.filter((each) => each !== index);
  }
  return shown;
}

function totalOf(shown: readonly number[], widths: readonly number[]): number {
  return shown.reduce((sum, index) => sum + (widths[index] ?? 0) + gap.length, -gap.length);
}

function pad(cell: string, width: number, align: 'left' | 'right'): string {
  const kept = cutText(cell, width);
  const blanks = ' '.repeat(Math.max(0, width - widthOf(kept)));
  return align === 'right' ? blanks + kept : kept + blanks;
}
