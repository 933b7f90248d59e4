import { createWriteStream, type WriteStream } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';

/** Something that a machine prints on, kept as a file. We listen and QEMU connects, so that not one byte is missed. */

/** A guest that prints without end must not fill the disk. */
const fileBytesMax = 16 * 1024 * 1024;
const tailCharsMax = 64 * 1024;
/** A console prints a few letters at a time, and each look goes over the whole tail. */
const lookEveryMs = 50;
const cutHere = '\n[failkit: the rest was not kept]\n';

export class Console implements AsyncDisposable {
  readonly socketPath: string;
  readonly #server: Server;
  readonly #file: WriteStream;
  readonly #clients = new Set<Socket>();
  #keptBytes = 0;
  /** With its escape sequences, which may come in two parts. */
  #raw = '';
  #looking: NodeJS.Timeout | null = null;
  /** Called with the newest text, as far as it may matter, soon after some came. */
  onText: (tail: string) => void = () => undefined;

  private constructor(socketPath: string, file: string) {
    this.socketPath = socketPath;
    this.#file = createWriteStream(file, { mode: 0o600 });
    // A full disk costs evidence, not the drill; the clean end of the file is what tells.
    this.#file.on('error', () => undefined);
    this.#server = createServer((client) => {
      this.#clients.add(client);
      client.on('data', (bytes: Buffer) => this.#take(bytes));
      client.on('error', () => client.destroy());
      client.on('close', () => this.#clients.delete(client));
    });
  }

  static async listen(socketPath: string, file: string): Promise<Console> {
    const console = new Console(socketPath, file);
    await new Promise<void>((resolve, reject) => {
      console.#server.once('error', reject);
      console.#server.listen(socketPath, resolve);
    });
    return console;
  }

  /** The end of what came, without escape sequences. */
  get tail(): string {
    return withoutEscapes(this.#raw);
  }

  /** The last line with words in it. */
  get lastLine(): string {
    const lines = this.tail.split(/[\r\n]+/).map((line) => line.trim());
    return lines.findLast((line) => line !== '') ?? '';
  }

  #take(bytes: Buffer): void {
    if (this.#keptBytes < fileBytesMax) {
      this.#keptBytes += bytes.length;
      this.#file.write(bytes);
      if (this.#keptBytes >= fileBytesMax) this.#file.write(cutHere);
    }
    this.#raw = (this.#raw + bytes.toString('latin1')).slice(-tailCharsMax);
    this.#looking ??= setTimeout(() => {
      this.#looking = null;
      this.onText(this.tail);
    }, lookEveryMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#looking ?? undefined);
    for (const client of this.#clients) client.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#file.end();
    await finished(this.#file).catch(() => undefined);
  }
}

/** Firmwares place each letter by itself: what is left reads as a person sees it. */
function withoutEscapes(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what these sequences begin with.
  return text.replace(/\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1bc|\0/g, '');
}
