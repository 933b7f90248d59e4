import { widthOf } from '../../agent/text-width.ts';

/** As much of a terminal as failkit uses: text, new lines, rewriting, and the sixteen colours. */

export interface Style {
  /** 0 to 15; null: the terminal's own. */
  readonly colour: number | null;
  readonly bold: boolean;
  readonly dim: boolean;
}

export interface Cell {
  /** One character as a person sees it; empty where a wide one reaches over from the left. */
  readonly text: string;
  readonly style: Style;
}

const plain: Style = { colour: null, bold: false, dim: false };
const segmenter = new Intl.Segmenter();
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
const tokens = /\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+/g;

export class Terminal {
  readonly columns: number;
  #rows: Cell[][] = [[]];
  #row = 0;
  #column = 0;
  #style = plain;

  constructor(columns: number) {
    this.columns = columns;
  }

  /** The rows up to the last that holds something. */
  get rows(): readonly (readonly Cell[])[] {
    const end = this.#rows.findLastIndex((row) => row.some(({ text }) => text.trim() !== ''));
    return this.#rows.slice(0, end + 1);
  }

  get text(): string {
    return this.rows.map((row) => row.map(({ text }) => text).join('')).join('\n');
  }

  write(text: string): void {
    for (const [token, parameters = '', command] of text.matchAll(tokens)) {
      if (command !== undefined) this.#control(command, parameters);
      else if (token === '\r') this.#column = 0;
      else if (token === '\n') this.#down();
      else for (const { segment } of segmenter.segment(token)) this.#put(segment);
    }
  }

  #put(character: string): void {
    const width = widthOf(character);
    if (this.#column + width > this.columns) {
      this.#down();
      this.#column = 0;
    }
    const row = this.#rows[this.#row] ?? [];
    while (row.length < this.#column) row.push({ text: ' ', style: plain });
    row[this.#column] = { text: character, style: this.#style };
    if (width === 2) row[this.#column + 1] = { text: '', style: this.#style };
    this.#column += width;
  }

  #down(): void {
    this.#row += 1;
    if (this.#row === this.#rows.length) this.#rows.push([]);
  }

  #control(command: string, parameters: string): void {
    if (command === 'm') this.#restyle(parameters);
    else if (command === 'A') this.#row = Math.max(0, this.#row - Number(parameters || 1));
    else if (command === 'K') this.#clearRow(parameters === '2' ? 0 : this.#column);
    else if (command === 'J') {
      this.#clearRow(this.#column);
      this.#rows = this.#rows.slice(0, this.#row + 1);
    }
  }

  #clearRow(from: number): void {
    this.#rows[this.#row] = (this.#rows[this.#row] ?? []).slice(0, from);
  }

  #restyle(parameters: string): void {
    for (const code of parameters.split(';').map(Number)) {
      if (code === 0) this.#style = plain;
      else if (code === 1) this.#style = { ...this.#style, bold: true };
      else if (code === 2) this.#style = { ...this.#style, dim: true };
      else if (code === 22) this.#style = { ...this.#style, bold: false, dim: false };
      else if (code === 39) this.#style = { ...this.#style, colour: null };
      else if (code >= 30 && code <= 37) this.#style = { ...this.#style, colour: code - 30 };
      else if (code >= 90 && code <= 97) this.#style = { ...this.#style, colour: code - 90 + 8 };
    }
  }
}
