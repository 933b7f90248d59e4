import type { HandshakeStream } from './handshake-stream.ts';
import { NbdExportRefused, NbdProtocolViolation, NbdTlsUntrusted, NbdUnsupported } from './nbd-errors.ts';
import { type NbdExport, parseBlockSizes, parseExportInfo } from './nbd-export.ts';
import type { NbdSocket, NbdTls } from './nbd-socket.ts';
import { describeNbdAddress, type NbdAddress } from './nbd-uri.ts';
import {
  encodeOption,
  encodeString,
  encodeUint16,
  encodeUint32,
  greetingFlag,
  greetingMagic,
  info,
  option,
  optionError,
  optionMagic,
  optionReply,
  optionReplyMagic,
  stringBytesMax,
} from './nbd-wire.ts';

export interface HandshakeWishes {
  /** Meta contexts that the server must grant. */
  readonly contexts: readonly string[];
  /** Those that are welcome where the server has them. */
  readonly contextsIfOffered: readonly string[];
  /** Used where the address asks for TLS. */
  readonly tls: NbdTls;
}

interface Reply {
  readonly type: number;
  readonly data: Buffer;
}

const replyBytesMax = 2 * stringBytesMax + 64;
/** For one option: a server has as many exports or bitmaps at most. */
const repliesMax = 10_000;
/** How many names an error shows. */
const shownNamesMax = 10;

/** The client's side of the fixed newstyle handshake. */
export class NbdHandshake {
  readonly #address: NbdAddress;
  readonly #where: string;
  readonly #socket: NbdSocket;
  readonly #stream: HandshakeStream;

  constructor(address: NbdAddress, socket: NbdSocket, stream: HandshakeStream) {
    this.#address = address;
    this.#where = describeNbdAddress(address);
    this.#socket = socket;
    this.#stream = stream;
  }

  /** Afterwards the connection is in transmission. */
  async enter(wishes: HandshakeWishes): Promise<NbdExport> {
    const structured = await this.#begin(wishes.tls);
    const contexts = await this.#agreeOnContexts(structured, wishes);
    return this.#go({ structured, contexts });
  }

  /** The names of all contexts that the export offers; afterwards the connection is of no more use. */
  async listContexts(tls: NbdTls): Promise<string[]> {
    return (await this.#begin(tls)) ? this.#offeredContexts() : [];
  }

  async #begin(tls: NbdTls): Promise<boolean> {
    await this.#greet();
    if (this.#address.tls) await this.#startTls(tls);
    const reply = await this.#ask(option.structuredReply);
    if (reply.type === optionError.tlsRequired) throw this.#refusal('', reply);
    return reply.type === optionReply.ack;
  }

  async #greet(): Promise<void> {
    const greeting = await this.#stream.read(18);
    if (greeting.readBigUInt64BE(0) !== greetingMagic) throw this.#violation('it does not greet as an NBD server');
    const flags = greeting.readUInt16BE(16);
    if (greeting.readBigUInt64BE(8) !== optionMagic || (flags & greetingFlag.fixedNewstyle) === 0)
      throw new NbdUnsupported(`${this.#where}: the server speaks only the old handshake: use a newer one`);
    this.#send(encodeUint32(flags & (greetingFlag.fixedNewstyle | greetingFlag.noZeroes)));
  }

  /** Whatever the server said in plain is forgotten: everything is negotiated anew under TLS. */
  async #startTls(tls: NbdTls): Promise<void> {
    const reply = await this.#ask(option.startTls);
    if (reply.type !== optionReply.ack)
      throw new NbdTlsUntrusted(
        `${this.#where}: the server has no TLS (${wordsOf(reply)}): set it up there, or use nbd:// on a trusted path`,
      );
    if (this.#stream.aheadBytes > 0)
      throw this.#violation(`${this.#stream.aheadBytes} bytes in plain after it agreed to TLS`);
    await this.#socket.startTls(tls);
  }

  async #agreeOnContexts(structured: boolean, wishes: HandshakeWishes): Promise<ReadonlyMap<number, string>> {
    const asked = [...new Set([...wishes.contexts, ...wishes.contextsIfOffered])];
    if (asked.length === 0) return new Map();
    if (!structured && wishes.contexts.length > 0)
      throw new NbdUnsupported(
        `${this.#where}: the server knows no structured replies, so it can't tell ${wishes.contexts.join(', ')}: use another`,
      );
    const granted = structured ? await this.#setContexts(asked) : new Map<number, string>();
    const missing = wishes.contexts.filter((name) => ![...granted.values()].includes(name));
    if (missing.length > 0) throw await this.#notGranted(missing);
    return granted;
  }

  async #setContexts(asked: readonly string[]): Promise<Map<number, string>> {
    this.#send(this.#contextQuery(option.setContexts, asked));
    const granted = new Map<number, string>();
    for await (const { type, data } of this.#replies(option.setContexts)) {
      if (type === optionReply.context) {
        const { id, name } = this.#contextOf(data);
        if (!asked.includes(name)) throw this.#violation(`it grants the context ${name}, which nobody asked for`);
        if (granted.has(id)) throw this.#violation(`it grants two contexts under the number ${id}`);
        if ([...granted.values()].includes(name)) throw this.#violation(`it grants the context ${name} twice`);
        granted.set(id, name);
      } else if (type === optionError.unknown || type === optionError.policy)
        throw await this.#exportRefusal({ type, data });
      else if (type >= optionReply.firstError) granted.clear();
      else if (type !== optionReply.ack) throw this.#violation(`reply ${type} to the question for contexts`);
    }
    return granted;
  }

  async #notGranted(missing: readonly string[]): Promise<NbdUnsupported> {
    const offered = await this.#offeredContexts();
    return new NbdUnsupported(
      `${this.#where}: the export has no context ${missing.join(', ')}; there are: ${shown(offered)}. ` +
        'For a dirty bitmap, start qemu-nbd with --bitmap',
    );
  }

  async #offeredContexts(): Promise<string[]> {
    this.#send(this.#contextQuery(option.listContexts, []));
    const names: string[] = [];
    for await (const { type, data } of this.#replies(option.listContexts)) {
      if (type === optionReply.context) names.push(this.#contextOf(data).name);
      else if (type === optionError.unknown || type === optionError.policy)
        throw await this.#exportRefusal({ type, data });
    }
    return names;
  }

  #contextQuery(number: number, names: readonly string[]): Uint8Array {
    const queries = [encodeUint32(names.length), ...names.map(encodeString)];
    return encodeOption(number, encodeString(this.#address.exportName), ...queries);
  }

  #contextOf(data: Buffer): { id: number; name: string } {
    if (data.length < 5) throw this.#violation(`a context in ${data.length} bytes`);
    return { id: data.readUInt32BE(0), name: data.toString('utf8', 4) };
  }

  async #go(agreed: Pick<NbdExport, 'structured' | 'contexts'>): Promise<NbdExport> {
    const wanted = [encodeUint16(1), encodeUint16(info.blockSize)];
    this.#send(encodeOption(option.go, encodeString(this.#address.exportName), ...wanted));
    let size: ReturnType<typeof parseExportInfo> | null = null;
    let blocks: ReturnType<typeof parseBlockSizes> | null = null;
    for await (const { type, data } of this.#replies(option.go)) {
      if (type >= optionReply.firstError) throw await this.#exportRefusal({ type, data });
      if (type === optionReply.ack) break;
      if (type !== optionReply.info || data.length < 2)
        throw this.#violation(`reply ${type} to the choice of the export`);
      if (data.readUInt16BE(0) === info.export) size = parseExportInfo(this.#where, data);
      if (data.readUInt16BE(0) === info.blockSize) blocks = parseBlockSizes(this.#where, data);
    }
    if (size === null) throw this.#violation('it opens the export without saying its size');
    return { ...agreed, ...size, blocks: blocks ?? parseBlockSizes(this.#where, null) };
  }

  async #exportRefusal(reply: Reply): Promise<Error> {
    if (reply.type !== optionError.unknown) return this.#refusal(this.#address.exportName, reply);
    const names = await this.#listExports();
    const there = names === null ? 'and it does not say which ones there are' : `there are: ${shown(names)}`;
    return new NbdExportRefused(
      `${this.#where}: the export "${this.#address.exportName}" does not exist on this server; ${there}`,
    );
  }

  async #listExports(): Promise<string[] | null> {
    this.#send(encodeOption(option.list));
    const names: string[] = [];
    for await (const { type, data } of this.#replies(option.list)) {
      if (type >= optionReply.firstError) return null;
      if (type !== optionReply.server) continue;
      const length = data.length < 4 ? -1 : data.readUInt32BE(0);
      if (length < 0 || length > data.length - 4) throw this.#violation(`an export's name of ${length} bytes`);
      names.push(data.toString('utf8', 4, 4 + length));
    }
    return names;
  }

  #refusal(name: string, reply: Reply): Error {
    const words = wordsOf(reply);
    if (reply.type === optionError.tlsRequired)
      return new NbdExportRefused(`${this.#where}: the server insists on TLS (${words}): write nbds: in place of nbd:`);
    if (reply.type === optionError.unsupported)
      return new NbdUnsupported(
        `${this.#where}: the server can't open an export the modern way (${words}): use a newer one`,
      );
    return new NbdExportRefused(`${this.#where}: the server refuses the export "${name}" (${words}): see its log`);
  }

  async #ask(number: number): Promise<Reply> {
    this.#send(encodeOption(number));
    for await (const reply of this.#replies(number)) {
      if (reply.type === optionReply.ack || reply.type >= optionReply.firstError) return reply;
      throw this.#violation(`reply ${reply.type} to option ${number}`);
    }
    throw this.#violation(`no reply to option ${number}`);
  }

  /** Up to and with the one that ends the option: an acknowledgement or an error. */
  async *#replies(number: number): AsyncGenerator<Reply> {
    for (let count = 0; count < repliesMax; count += 1) {
      const header = await this.#stream.read(20);
      if (header.readBigUInt64BE(0) !== optionReplyMagic)
        throw this.#violation('an option reply without its magic number');
      if (header.readUInt32BE(8) !== number)
        throw this.#violation(`a reply to option ${header.readUInt32BE(8)} in place of ${number}`);
      const [type, length] = [header.readUInt32BE(12), header.readUInt32BE(16)];
      if (length > replyBytesMax) throw this.#violation(`an option reply of ${length} bytes, at most ${replyBytesMax}`);
      yield { type, data: await this.#stream.read(length) };
      if (type === optionReply.ack || type >= optionReply.firstError) return;
    }
    throw this.#violation(`more than ${repliesMax} replies to option ${number}`);
  }

  #send(bytes: Uint8Array): void {
    this.#socket.send([bytes]);
  }

  #violation(what: string): NbdProtocolViolation {
    return new NbdProtocolViolation(`${this.#where}: the server breaks the protocol in the handshake: ${what}`);
  }
}

const errorWords: Readonly<Record<number, string>> = {
  [optionError.unsupported]: 'unsupported',
  [optionError.policy]: 'against its policy',
  [optionError.tlsRequired]: 'TLS required',
  [optionError.unknown]: 'unknown export',
  [optionError.shutdown]: 'shutting down',
  [optionError.blockSizeRequired]: 'block size required',
};

function wordsOf({ type, data }: Reply): string {
  const words = errorWords[type] ?? `error 0x${type.toString(16)}`;
  return data.length === 0 ? words : `${words}: ${printable(data)}`;
}

/** What a server says goes to a terminal and into a log: without control characters, and not without end. */
export function printable(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 400)).toString();
  return text.replace(/\p{Cc}/gu, ' ').trim();
}

function shown(names: readonly string[]): string {
  if (names.length === 0) return 'none';
  const few = names
    .slice(0, shownNamesMax)
    .map((name) => (name === '' ? '"" (the default)' : printable(Buffer.from(name))));
  return names.length > shownNamesMax ? `${few.join(', ')} and ${names.length - shownNamesMax} more` : few.join(', ');
}
