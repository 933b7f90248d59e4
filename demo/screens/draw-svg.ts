import type { Cell, Style } from './terminal.ts';

/** What a terminal shows, as a picture that is text. */

export interface Theme {
  readonly background: string;
  readonly frame: string;
  readonly foreground: string;
  readonly dim: string;
  /** The sixteen. */
  readonly colours: readonly string[];
}

export const darkTheme: Theme = {
  background: '#161b22',
  frame: '#30363d',
  foreground: '#dfe5ec',
  dim: '#8b949e',
  colours: [
    ...['#484f58', '#ff7b72', '#56d364', '#e3b341', '#79c0ff', '#d2a8ff', '#56d4dd', '#dfe5ec'],
    ...['#6e7681', '#ffa198', '#7ee787', '#f2cc60', '#a5d6ff', '#e2c5ff', '#b3f0ff', '#ffffff'],
  ],
};

/** For looking whether everything can be read there, too. */
export const lightTheme: Theme = {
  background: '#ffffff',
  frame: '#d0d7de',
  foreground: '#1f2328',
  dim: '#6e7781',
  colours: [
    ...['#24292f', '#cf222e', '#116329', '#7d4e00', '#0969da', '#8250df', '#1b7c83', '#6e7781'],
    ...['#57606a', '#a40e26', '#1a7f37', '#633c01', '#218bff', '#a475f9', '#3192aa', '#8c959f'],
  ],
};

const cellWidth = 8.4;
const rowHeight = 19;
const fontSize = 14;
const padding = 16;
const baseline = 14;

export function drawSvg(
  rows: readonly (readonly Cell[])[],
  options: { readonly columns: number; readonly title: string; readonly theme: Theme },
): string {
  const { columns, title, theme } = options;
  const width = Math.ceil(columns * cellWidth + 2 * padding);
  const height = rows.length * rowHeight + 2 * padding;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" font-family="'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="${fontSize}" fill="${theme.foreground}" xml:space="preserve">`,
    `<title>${escaped(title)}</title>`,
    `<rect x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8" fill="${theme.background}" stroke="${theme.frame}"/>`,
    ...rows.flatMap((row, index) => drawRow(row, padding + index * rowHeight + baseline, theme)),
    '</svg>',
    '',
  ].join('\n');
}

function drawRow(row: readonly Cell[], y: number, theme: Theme): readonly string[] {
  const drawn: string[] = [];
  for (let start = 0; start < row.length; ) {
    const end = endOfRun(row, start);
    const text = row
      .slice(start, end)
      .map((cell) => cell.text)
      .join('');
    if (text.trim() !== '') drawn.push(drawText(text, start, end - start, y, row[start]?.style, theme));
    start = end;
  }
  return drawn;
}

/** Cells of one style; a blank has no style that anybody sees, and two of them end a run so that columns stay where they are. */
function endOfRun(row: readonly Cell[], start: number): number {
  const style = row[start]?.style;
  let end = start + 1;
  while (end < row.length && sameStyle(row[end]?.style, style) && !isGap(row, end)) end++;
  return end;
}

function isGap(row: readonly Cell[], at: number): boolean {
  return row[at - 1]?.text === ' ' && row[at]?.text !== ' ' && row[at - 2]?.text === ' ';
}

function sameStyle(a: Style | undefined, b: Style | undefined): boolean {
  return a?.colour === b?.colour && a?.bold === b?.bold && a?.dim === b?.dim;
}

/** `textLength`: whatever font the reader has, a column is a column. */
function drawText(
  text: string,
  column: number,
  cells: number,
  y: number,
  style: Style | undefined,
  theme: Theme,
): string {
  const shown = text.trimEnd();
  const x = (padding + column * cellWidth).toFixed(1);
  const length = ((cells - (text.length - shown.length)) * cellWidth).toFixed(1);
  const colour = fillOf(style, theme);
  const fill = colour === theme.foreground ? '' : ` fill="${colour}"`;
  const weight = style?.bold ? ' font-weight="bold"' : '';
  return `<text x="${x}" y="${y}" textLength="${length}" lengthAdjust="spacingAndGlyphs"${fill}${weight}>${escaped(shown)}</text>`;
}

function fillOf(style: Style | undefined, theme: Theme): string {
  if (style?.dim) return theme.dim;
  const colour = style?.colour ?? null;
  return colour === null ? theme.foreground : (theme.colours[colour] ?? theme.foreground);
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
