/** What nbdkit and VDDK print, kept for the errors: the newest lines, without secrets. */

const linesMax = 200;
const lineCharsMax = 500;
const tailLines = 3;
/** VDDK writes so in its own log: `… Error 14009 (The server refused connection) at 5510.` */
const numbered = /\bError (\d+) \(([^)]*)\)/;
/** nbdkit's own errors, and those that a plugin or a library gives it to print. */
const isError = /^nbdkit: (?:[^ ]+: )?error: /;
const isDebug = /^nbdkit: (?:[^ ]+: )?debug: /;
const sessionCookie = /vmware_soap_session="?[^\s;"]+"?/g;

export class Messages {
  readonly #secrets: readonly string[];
  readonly #lines: string[] = [];
  #rest = '';
  #vixError: number | null = null;

  constructor(secrets: readonly string[]) {
    this.#secrets = secrets.filter((secret) => secret !== '');
  }

  /** The number of the newest error that VDDK told of; null: of none. */
  get vixError(): number | null {
    return this.#vixError;
  }

  add(text: string): void {
    const lines = (this.#rest + text).split('\n');
    // A line without an end would otherwise grow for ever; a cut secret would not be known any more.
    this.#rest = this.#redacted(lines.pop() ?? '').slice(-lineCharsMax);
    for (const line of lines) this.#addLine(line);
  }

  /** The newest errors, in the order in which they came. */
  words(): string {
    const lines = this.#rest === '' ? this.#lines : [...this.#lines, this.#redacted(this.#rest)];
    const told = lines.flatMap((line) => {
      const vix = numbered.exec(line);
      if (vix !== null) return [`VDDK error ${vix[1]} (${vix[2]})`];
      return isError.test(line) ? [line.replace(isError, '')] : [];
    });
    const rest = lines.filter((line) => !isDebug.test(line));
    return [...new Set(told.length > 0 ? told : rest)].slice(-tailLines).join(': ');
  }

  #addLine(line: string): void {
    const kept = this.#redacted(line).slice(0, lineCharsMax);
    const vix = numbered.exec(kept);
    if (vix !== null) this.#vixError = Number(vix[1]);
    this.#lines.push(kept);
    if (this.#lines.length > linesMax) this.#lines.shift();
  }

  #redacted(line: string): string {
    const without = this.#secrets.reduce((text, secret) => text.replaceAll(secret, '[redacted]'), line);
    return without.replaceAll(sessionCookie, 'vmware_soap_session=[redacted]');
  }
}
