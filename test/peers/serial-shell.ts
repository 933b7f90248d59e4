/** The guest's shell on its serial port, a socket of QEMU: one line of shell in, what it printed and its code out. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const connectTimeoutMs = 30_000;
const commandTimeoutMs = 120_000;
/** A terminal line holds no more. */
const lineCharsMax = 4_000;
const logCharsMax = 4_000_000;

/** To a socket that a process which has just been started will make. */
export async function connectWhenThere(path: string): Promise<Socket> {
  const until = performance.now() + connectTimeoutMs;
  for (;;) {
    const socket = connect(path);
    const connected = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    if (connected) return socket;
    socket.destroy();
    if (performance.now() > until) throw new Error(`nobody listens at ${path}`);
    await sleep(20);
  }
}

export interface ShellAnswer {
  readonly code: number;
  readonly output: string;
}

export interface Ready {
  /** 1 at the first boot of a fresh disk. */
  readonly boot: number;
  readonly upSeconds: number;
}

export class SerialShell implements Disposable {
  readonly #socket: Socket;
  #log = '';
  /** Where in the log nobody has looked yet. */
  #seen = 0;
  #ready: Promise<Ready> | null = null;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    this.#socket = socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#log += text;
      if (this.#log.length > logCharsMax) throw new Error('the guest prints without end');
    });
    // A machine that was killed resets it; whoever waits for an answer then is told so.
    socket.on('error', () => socket.destroy());
  }

  /** Waits for the socket to be there. */
  static async connect(path: string): Promise<SerialShell> {
    return new SerialShell(await connectWhenThere(path));
  }

  /** Everything that came so far. */
  get log(): string {
    return this.#log;
  }

  /** Resolves when the guest takes commands. */
  ready(timeoutMs: number): Promise<Ready> {
    this.#ready ??= this.#find(/READY boot=(\d+) up=([\d.]+)\r?\n/, timeoutMs).then(([, boot, up]) => ({
      boot: Number(boot),
      upSeconds: Number(up),
    }));
    return this.#ready;
  }

  /** One command after the other, in the order of the calls. */
  async run(line: string, timeoutMs = commandTimeoutMs): Promise<ShellAnswer> {
    if (line.length > lineCharsMax || line.includes('\n')) throw new Error(`not one line of shell: ${line}`);
    const answer = this.#last.then(async () => {
      this.#seen = this.#log.length;
      this.#socket.write(`${line}\n`);
      const [, output = '', code] = await this.#find(/^([\s\S]*?)DONE (\d+)\r?\n/, timeoutMs);
      return { code: Number(code), output: output.replaceAll('\r', '').trim() };
    });
    this.#last = answer.catch(() => null);
    return await answer;
  }

  async #find(wanted: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const found = wanted.exec(this.#log.slice(this.#seen));
      if (found !== null) {
        this.#seen += found.index + found[0].length;
        return found;
      }
      const tail = this.#log.slice(-500);
      if (this.#socket.destroyed) throw new Error(`the guest is gone; the end of its console:\n${tail}`);
      if (performance.now() > until) throw new Error(`the guest is silent; the end of its console:\n${tail}`);
      await sleep(10);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
