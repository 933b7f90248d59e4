import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { be } from '../scripted-server.ts';

/** A client that says exactly what it is told to, right or wrong. */
export class RawClient implements Disposable {
  readonly socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  ended = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.ended = true;
    });
  }

  static async connect(path: string): Promise<RawClient> {
    const socket = connect({ path });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  send(...parts: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Throws when the server hangs up first, or says nothing for ten seconds. */
  async read(length: number): Promise<Buffer> {
    for (const until = performance.now() + 10_000; this.#bytes.length < length; await sleep(2)) {
      if (this.ended) throw new Error(`the server hung up after ${this.#bytes.length} of ${length} bytes`);
      if (performance.now() > until) throw new Error(`only ${this.#bytes.length} of ${length} bytes came`);
    }
    const bytes = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return bytes;
  }

  async hungUpOn(): Promise<void> {
    for (const until = performance.now() + 10_000; !this.ended; await sleep(2))
      if (performance.now() > until) throw new Error('the server still holds the connection');
  }

  option(number: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(Buffer.from('IHAVEOPT'), be(32, number, data.length), data);
  }

  /** Type and data of the next reply to an option. */
  async optionReply(): Promise<{ readonly type: number; readonly data: Buffer }> {
    const header = await this.read(20);
    return { type: header.readUInt32BE(12), data: await this.read(header.readUInt32BE(16)) };
  }

  /** Through the greeting, with structured replies where asked for, into the default export. */
  async enter({ structured = true } = {}): Promise<void> {
    await this.read(18);
    this.send(be(32, 3));
    if (structured) {
      this.option(8);
      await this.optionReply();
      this.option(10, Buffer.concat([be(32, 0, 1, 15), Buffer.from('base:allocation')]));
      while ((await this.optionReply()).type !== 1);
    }
    this.option(7, Buffer.concat([be(32, 0), be(16, 0)]));
    while ((await this.optionReply()).type !== 1);
  }

  request(command: number, offset: number, length: number, { flags = 0, cookie = 7, payload = Buffer.alloc(0) } = {}) {
    this.send(be(32, 0x25609513), be(16, flags, command), be(64, cookie, offset), be(32, length), payload);
  }

  /** One chunk of a structured reply. */
  async chunk(): Promise<{ readonly type: number; readonly done: boolean; readonly body: Buffer }> {
    const header = await this.read(20);
    if (header.readUInt32BE(0) !== 0x668e33ef) throw new Error(`no structured reply: ${header.toString('hex')}`);
    return {
      type: header.readUInt16BE(6),
      done: header.readUInt16BE(4) === 1,
      body: await this.read(header.readUInt32BE(16)),
    };
  }

  /** The errno of a chunk that must be an error. */
  async refusal(): Promise<number> {
    const { type, body } = await this.chunk();
    if (type < 0x8000) throw new Error(`no error, but a chunk of type ${type}`);
    return body.readUInt32BE(0);
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
