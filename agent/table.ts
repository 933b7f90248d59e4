import { stripVTControlCharacters } from 'node:util';

export interface Column {
  readonly title: string;
  /** Numbers and sizes stand on the right. */
  readonly align?: 'left' | 'right';
}

const gap = '  ';
const segmenter = new Intl.Segmenter();

/** Lines with aligned columns, the titles first. Cells may hold colours. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): readonly string[] {
  const titles = columns.map((column) => column.title);
  const widths = columns.map((_, index) => Math.max(...[titles, ...rows].map((row) => widthOf(row[index] ?? ''))));
  return [titles, ...rows].map((row) =>
    columns
      .map((column, index) => pad(row[index] ?? '', widths[index] ?? 0, column.align ?? 'left'))
      .join(gap)
      .trimEnd(),
  );
}

function pad(cell: string, width: number, align: 'left' | 'right'): string {
  const blanks = ' '.repeat(Math.max(0, width - widthOf(cell)));
  return align === 'right' ? blanks + cell : cell + blanks;
}

/** Characters that a person sees. Wide ones (CJK) count as one: their width depends on the terminal. */
function widthOf(cell: string): number {
  return [...segmenter.segment(stripVTControlCharacters(cell))].length;
}
