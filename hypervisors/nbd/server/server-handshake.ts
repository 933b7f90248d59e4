import { NbdProtocolViolation } from '../nbd-errors.ts';
import {
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
} from '../nbd-wire.ts';
import type { ClientBytes } from './client-bytes.ts';
import { describeExport, encodeSize, flagsOf } from './describe-export.ts';
import type { NbdExportHandler } from './nbd-export-handler.ts';
import { OptionData, OptionMalformed } from './option-data.ts';

/** What a client and the server agreed on before transmission. */
export interface Agreement {
  readonly handler: NbdExportHandler;
  readonly structured: boolean;
  /** Whether block status may be asked for. */
  readonly allocation: boolean;
}

export interface HandshakeTerms {
  /** By name; the empty name means the default. */
  find(name: string): NbdExportHandler | undefined;
  readonly exports: readonly NbdExportHandler[];
  /** Null: there is no TLS here. Otherwise nothing is told or served without it. */
  readonly startTls: (() => Promise<void>) | null;
}

const allocationContext = 'base:allocation';
export const allocationContextId = 1;
/** Two names of the longest kind, and lists beside them. */
const optionBytesMax = 16 * 1024;
/** Beyond that nobody means an option. */
const skippedBytesMax = 1024 * 1024;
/** A client asks a handful of questions; one that lists all exports, one more for each. */
const optionsMax = 1024;
const zeroesAfterExportName = 124;

/** Null: go on with the next option. */
type Outcome = Agreement | 'abort' | null;

/** The server's side of the fixed newstyle handshake. */
export class ServerHandshake {
  readonly #client: ClientBytes;
  readonly #terms: HandshakeTerms;
  readonly #where: string;
  #secured = false;
  #structured = false;
  /** The export whose allocation the client may ask for. */
  #allocationOf: NbdExportHandler | null = null;
  #noZeroes = false;

  constructor(client: ClientBytes, terms: HandshakeTerms, where: string) {
    this.#client = client;
    this.#terms = terms;
    this.#where = where;
  }

  /** Null when the client said that it wants nothing more. Throws what the client has to be sent away for. */
  async agree(): Promise<Agreement | null> {
    const greeting = Buffer.allocUnsafe(16);
    greeting.writeBigUInt64BE(greetingMagic, 0);
    greeting.writeBigUInt64BE(optionMagic, 8);
    const known = greetingFlag.fixedNewstyle | greetingFlag.noZeroes;
    void this.#client.send([greeting, encodeUint16(known)]);
    const flags = (await this.#client.read(4)).readUInt32BE();
    if ((flags & ~known) !== 0 || (flags & greetingFlag.fixedNewstyle) === 0)
      throw this.#violation(`handshake flags 0x${flags.toString(16)}`);
    this.#noZeroes = (flags & greetingFlag.noZeroes) !== 0;
    for (let count = 0; count < optionsMax; count += 1) {
      const outcome = await this.#nextOption();
      if (outcome === 'abort') return null;
      if (outcome !== null) return outcome;
    }
    throw this.#violation(`more than ${optionsMax} options`);
  }

  async #nextOption(): Promise<Outcome> {
    const header = await this.#client.read(16);
    if (header.readBigUInt64BE(0) !== optionMagic) throw this.#violation('an option without its magic number');
    const [number, length] = [header.readUInt32BE(8), header.readUInt32BE(12)];
    if (length > skippedBytesMax) throw this.#violation(`an option of ${length} bytes`);
    if (length > optionBytesMax) {
      await this.#client.skip(length);
      if (number === option.exportName) throw this.#violation(`an export name of ${length} bytes`);
      return this.#refuse(number, optionError.tooBig, `at most ${optionBytesMax} bytes`);
    }
    const data = await this.#client.read(length);
    try {
      return await this.#answer(number, data);
    } catch (error) {
      if (!(error instanceof OptionMalformed)) throw error;
      return this.#refuse(number, optionError.invalid, error.message);
    }
  }

  async #answer(number: number, data: Buffer): Promise<Outcome> {
    if (number === option.abort) {
      await this.#reply(number, optionReply.ack);
      return 'abort';
    }
    if (number === option.startTls) return this.#startTls(data);
    if (this.#terms.startTls !== null && !this.#secured) {
      if (number === option.exportName) throw this.#violation('an export without TLS');
      return this.#refuse(number, optionError.tlsRequired, 'this server speaks TLS only');
    }
    const fields = new OptionData(data);
    switch (number) {
      case option.exportName:
        return this.#enterByName(data.toString());
      case option.list:
        return this.#list(fields);
      case option.structuredReply:
        fields.end();
        this.#structured = true;
        return this.#acknowledge(number);
      case option.listContexts:
      case option.setContexts:
        return this.#contexts(number, fields);
      case option.info:
      case option.go:
        return this.#enter(number, fields);
      default:
        return this.#refuse(number, optionError.unsupported, '');
    }
  }

  /** What was agreed on before counts for nothing afterwards, and no byte that came in plain is believed. */
  async #startTls(data: Buffer): Promise<Outcome> {
    const { startTls } = this.#terms;
    if (data.length > 0) return this.#refuse(option.startTls, optionError.invalid, 'no data belongs there');
    if (this.#secured) return this.#refuse(option.startTls, optionError.invalid, 'this is TLS already');
    if (startTls === null) return this.#refuse(option.startTls, optionError.policy, 'this server has no certificate');
    if (this.#client.aheadBytes > 0) throw this.#violation('bytes in plain after it asked for TLS');
    void this.#reply(option.startTls, optionReply.ack);
    await startTls();
    this.#secured = true;
    this.#structured = false;
    this.#allocationOf = null;
    return null;
  }

  /** NBD_OPT_EXPORT_NAME knows no refusal but to hang up. */
  async #enterByName(name: string): Promise<Outcome> {
    const handler = this.#terms.find(name);
    if (handler === undefined) throw this.#violation('an export that is not here');
    const zeroes = this.#noZeroes ? 0 : zeroesAfterExportName;
    void this.#client.send([encodeSize(handler), encodeUint16(flagsOf(handler)), Buffer.alloc(zeroes)]);
    return this.#agreement(handler);
  }

  async #list(fields: OptionData): Promise<Outcome> {
    fields.end();
    for (const { name, description = '' } of this.#terms.exports)
      await this.#reply(option.list, optionReply.server, encodeString(name), Buffer.from(description));
    return this.#acknowledge(option.list);
  }

  async #contexts(number: number, fields: OptionData): Promise<Outcome> {
    const name = fields.string();
    const count = fields.uint32();
    // Each takes 4 bytes, so their number is bounded by what came.
    const queries = Array.from({ length: Math.min(count, fields.left) }, () => fields.string());
    fields.end();
    if (queries.length !== count) throw new OptionMalformed(`${count} queries in an option that has no room for them`);
    if (!this.#structured)
      return this.#refuse(number, optionError.invalid, 'structured replies have to be agreed on first');
    const handler = this.#terms.find(name);
    if (handler === undefined) return this.#refuse(number, optionError.unknown, 'no such export');
    const lists = number === option.listContexts;
    const wanted = lists
      ? queries.length === 0 || queries.some((query) => query === 'base:' || query === allocationContext)
      : queries.includes(allocationContext);
    const granted = wanted && handler.extents !== undefined;
    if (!lists) this.#allocationOf = granted ? handler : null;
    const id = encodeUint32(lists ? 0 : allocationContextId);
    if (granted) await this.#reply(number, optionReply.context, id, Buffer.from(allocationContext));
    return this.#acknowledge(number);
  }

  async #enter(number: number, fields: OptionData): Promise<Outcome> {
    const name = fields.string();
    const asked = Array.from({ length: fields.uint16() }, () => fields.uint16());
    fields.end();
    const handler = this.#terms.find(name);
    if (handler === undefined) return this.#refuse(number, optionError.unknown, 'no such export');
    for (const described of describeExport(handler, new Set(asked.length > 0 ? asked : [info.export])))
      await this.#reply(number, optionReply.info, described);
    await this.#acknowledge(number);
    return number === option.go ? this.#agreement(handler) : null;
  }

  #agreement(handler: NbdExportHandler): Agreement {
    return { handler, structured: this.#structured, allocation: this.#allocationOf === handler };
  }

  async #acknowledge(number: number): Promise<null> {
    await this.#reply(number, optionReply.ack);
    return null;
  }

  async #refuse(number: number, error: number, words: string): Promise<null> {
    await this.#reply(number, error, Buffer.from(words));
    return null;
  }

  #reply(number: number, type: number, ...parts: readonly Uint8Array[]): Promise<void> {
    const header = Buffer.allocUnsafe(20);
    header.writeBigUInt64BE(optionReplyMagic, 0);
    header.writeUInt32BE(number, 8);
    header.writeUInt32BE(type, 12);
    header.writeUInt32BE(
      parts.reduce((bytes, part) => bytes + part.length, 0),
      16,
    );
    return this.#client.send([header, ...parts]);
  }

  #violation(what: string): NbdProtocolViolation {
    return new NbdProtocolViolation(
      `${this.#where}: the client breaks the protocol in the handshake: it sends ${what}`,
    );
  }
}
