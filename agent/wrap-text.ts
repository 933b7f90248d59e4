import { stripVTControlCharacters } from 'node:util';
import { widthOf } from './text-width.ts';

/** Breaks a text between words; a longer word stays whole. `columns` null: nobody looks at a terminal, so it stays one line. */
export function wrapText(text: string, columns: number | null): readonly string[] {
  if (columns === null) return text.split('\n');
  return text.split('\n').flatMap((line) => wrapLine(line, Math.max(columnsMin, columns)));
}

/** A line of a terminal: what has no room goes on below, a little further in. */
export function wrapLineBelow(line: string, columns: number | null): readonly string[] {
  if (columns === null || widthOf(line) <= columns) return [line];
  // A colour may begin before the indent.
  const indent = /^ */.exec(stripVTControlCharacters(line))?.[0] ?? '';
  const [first = '', ...rest] = wrapText(line.replace(indent, ''), columns - indent.length - below.length);
  return [indent + first, ...rest.map((more) => indent + below + more)];
}

const below = '  ';

/** A narrower terminal wraps by itself. */
const columnsMin = 30;

function wrapLine(line: string, columns: number): readonly string[] {
  const lines: string[] = [];
  let current = '';
  for (const word of line.split(' ')) {
    const longer = current === '' ? word : `${current} ${word}`;
    if (widthOf(longer) <= columns || current === '') {
      current = longer;
      continue;
    }
    lines.push(current);
    current = word;
  }
  return [...lines, current];
}
