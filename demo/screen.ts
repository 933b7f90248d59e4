import picocolors from 'picocolors';
import { formatDuration } from '../agent/quantities.ts';
import { type Column, formatTable } from '../agent/table.ts';

/** What a person sees: chapters, what held in each, and a line that shows what is being waited for. 80 columns. */

const columns = 80;
const spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const spinEveryMs = 120;
const elapsedWidth = 10;
const rewind = '\r\x1b[2K';
const indent = '    ';

export interface Screen {
  title(text: string, note: string): void;
  chapter(title: string): void;
  /** Something that was claimed and checked. */
  held(text: string): void;
  /** What a person has to know to follow; nothing was checked. */
  aside(text: string): void;
  /** Shows `text` and the seconds until the work is done. */
  during<Result>(text: string, work: Promise<Result>): Promise<Result>;
  table(columns: readonly Column[], rows: readonly (readonly string[])[]): void;
  /** Small print below a table. */
  note(text: string): void;
  end(text: string): void;
  failed(text: string, details: readonly string[]): void;
}

export function createScreen(stdout: NodeJS.WriteStream): Screen {
  const { bold, dim, green, red, cyan } = picocolors.createColors(stdout.isTTY === true && picocolors.isColorSupported);
  const line = (text = '') => stdout.write(`${text}\n`);
  let chapters = 0;
  return {
    title: (text, note) => line(`\n${bold(text)}\n${dim(note)}`),
    chapter: (title) => line(`\n${bold(cyan(String(++chapters).padStart(2)))}  ${bold(title)}`),
    held: (text) => line(`${indent}${green('✓')} ${hang(text)}`),
    aside: (text) => line(dim(`${indent}  ${hang(text)}`)),
    during: async (text, work) => {
      if (stdout.isTTY !== true) return await work;
      const started = performance.now();
      let turn = 0;
      const show = () => {
        const elapsed = formatDuration(Math.floor((performance.now() - started) / 1000) * 1000);
        // A line that wraps can't be rewritten.
        const shown = text.slice(0, columns - indent.length - 2 - elapsedWidth);
        stdout.write(`${rewind}${indent}${cyan(spinner[turn++ % spinner.length] ?? '')} ${shown} ${dim(elapsed)}`);
      };
      const timer = setInterval(show, spinEveryMs);
      try {
        return await work;
      } finally {
        clearInterval(timer);
        stdout.write(rewind);
      }
    },
    table: (heads, rows) => {
      const [titles = '', ...rest] = formatTable(heads, rows);
      line();
      line(bold(titles));
      for (const row of rest) line(row);
    },
    note: (text) => line(dim(text)),
    end: (text) => line(`\n${green(bold('✓'))} ${bold(text)}`),
    failed: (text, details) => {
      line(`\n${red(bold('✗'))} ${bold(text)}`);
      for (const detail of details) line(dim(`${indent}${detail}`));
    },
  };
}

/** Breaks at blanks, so that a line ends before the terminal does; what follows is set under the text. */
function hang(text: string): string {
  const lines: string[] = [];
  let current = '';
  for (const word of text.split(' ')) {
    if (current !== '' && indent.length + 2 + current.length + 1 + word.length > columns) {
      lines.push(current);
      current = word;
    } else current = current === '' ? word : `${current} ${word}`;
  }
  return [...lines, current].join(`\n${indent}  `);
}
