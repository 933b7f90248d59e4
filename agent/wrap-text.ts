/** Breaks a text between words; a longer word stays whole. `columns` null: nobody looks at a terminal, so it stays one line. */
export function wrapText(text: string, columns: number | null): readonly string[] {
  if (columns === null) return text.split('\n');
  return text.split('\n').flatMap((line) => wrapLine(line, Math.max(columnsMin, columns)));
}

/** A narrower terminal wraps by itself. */
const columnsMin = 30;

function wrapLine(line: string, columns: number): readonly string[] {
  const lines: string[] = [];
  let current = '';
  for (const word of line.split(' ')) {
    const longer = current === '' ? word : `${current} ${word}`;
    if (longer.length <= columns || current === '') {
      current = longer;
      continue;
    }
    lines.push(current);
    current = word;
  }
  return [...lines, current];
}
