import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { pause } from '../pause.ts';
import { trustedAgent } from '../vim25/trusted-agent.ts';
import type { VimSession } from '../vim25/vim-session.ts';
import type { TransportSettings } from '../vim25/vim-transport.ts';
import { VsphereDenied, VsphereTimedOut, VsphereUnreachable, VsphereUntrusted } from '../vsphere-errors.ts';
import { DatastoreUnreadable, DatastoreUnwritable } from './datastore-errors.ts';
import { type Content, sendFile } from './send-file.ts';

/** Files of datastores over HTTPS, by the login of the API: without its cookie each request would be a login of its own. */

const socketsMax = 4;
const answerTimeoutMs = 120_000;
const attemptsMax = 4;
const retryDelayMs = 500;

export interface FolderAnswer {
  readonly bytes: Uint8Array;
  /** Of the whole file, where the answer tells. */
  readonly fileBytes: number | null;
}

export class FolderClient implements Disposable {
  readonly #session: VimSession;
  readonly #server: TransportSettings;
  readonly #agent: ReturnType<typeof trustedAgent>;

  constructor(session: VimSession, server: TransportSettings) {
    this.#session = session;
    this.#server = server;
    const { trust, proxy } = server;
    this.#agent = trustedAgent(session.where, { trust, proxy, socketsMax, onTrusted: () => undefined });
  }

  /**
   * The bytes from `offset` on: exactly so many, or throws. Throws DatastoreUnreadable for what can't be had, and what the API's own
   * errors name.
   */
  async get(path: string, name: string, offset: number, length: number, signal: AbortSignal): Promise<FolderAnswer> {
    const ask = (cookie: string) => this.#ask(path, cookie, offset, length, signal);
    const answer = await this.#loggedIn(`read ${name}`, ask, signal);
    return wholeAnswer(this.#session.where, name, offset, length, answer);
  }

  /** A small file, or null where it is not there. */
  async find(path: string, name: string, bytesMax: number, signal: AbortSignal): Promise<Uint8Array | null> {
    const ask = (cookie: string) => this.#ask(path, cookie, 0, bytesMax, signal);
    const answer = await this.#loggedIn(`read ${name}`, ask, signal);
    if (answer.status === 404) return null;
    // An empty file has no first byte that a range could begin at.
    if (answer.status === 416 || (answer.status === 200 && answer.bytes.length === 0)) return new Uint8Array();
    const { bytes, fileBytes } = wholeAnswer(this.#session.where, name, 0, bytesMax, answer);
    if ((fileBytes ?? 0) > bytes.length)
      throw new DatastoreUnreadable(`${name} has ${fileBytes} bytes, more than any file of its kind`);
    return bytes;
  }

  /**
   * Writes the whole file, over one that is there. `content` is asked for anew where the connection broke. Throws DatastoreUnwritable where
   * the server does not take it, and what the API's own errors name.
   */
  async put(path: string, name: string, bytes: number, content: Content, signal: AbortSignal): Promise<void> {
    const { where } = this.#session;
    const to = { where, agent: this.#agent, ...this.#server.address, path };
    const send = (cookie: string) => sendFile({ ...to, cookie }, bytes, content, signal);
    const { status } = await this.#loggedIn(`write ${name}`, send, signal);
    if (status === 403)
      throw new VsphereDenied(`${where} does not let us write ${name} (privilege Datastore.FileManagement)`);
    if (status < 200 || status > 299)
      throw new DatastoreUnwritable(
        `${where} does not take ${name} (status ${status}${status === 507 ? ': no space is left' : ''})`,
      );
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  /** Again where the login ended, or the connection broke. `what`: for messages. */
  async #loggedIn<T extends { readonly status: number }>(
    what: string,
    ask: (cookie: string) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    let cookie = await this.#session.cookie(signal);
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await ask(cookie);
        if (answer.status !== 401) return answer;
        cookie = await this.#session.cookie(signal, cookie);
        if (attempt === attemptsMax) throw new VsphereDenied(`${this.#session.where} does not let us ${what}`);
      } catch (error) {
        signal.throwIfAborted();
        const mayPass = error instanceof VsphereUnreachable || error instanceof VsphereTimedOut;
        if (!mayPass || attempt === attemptsMax) throw error;
        await pause(retryDelayMs * attempt, signal);
      }
    }
  }

  async #ask(path: string, cookie: string, offset: number, length: number, signal: AbortSignal): Promise<Answer> {
    const limit = AbortSignal.timeout(answerTimeoutMs);
    const range = `bytes=${offset}-${offset + length - 1}`;
    const { host, port } = this.#server.address;
    const options = { agent: this.#agent, host, port, path, headers: { cookie, range } };
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const sent = request({ ...options, signal: AbortSignal.any([signal, limit]) }, resolve);
        sent.on('error', reject);
        sent.end();
      });
      return { ...headOf(response), bytes: await bodyOf(response, length) };
    } catch (cause) {
      signal.throwIfAborted();
      if (limit.aborted)
        throw new VsphereTimedOut(`${this.#session.where} gave no whole answer within ${answerTimeoutMs / 1000} s`, {
          cause,
        });
      if (cause instanceof VsphereUntrusted || cause instanceof VsphereTimedOut) throw cause;
      throw new VsphereUnreachable(`${this.#session.where} broke off while a datastore was read`, { cause });
    }
  }
}

interface Answer {
  readonly status: number;
  readonly range: string;
  /** No more than were asked for, and one. */
  readonly bytes: Uint8Array;
}

function headOf({ statusCode, headers }: IncomingMessage): Omit<Answer, 'bytes'> {
  return { status: statusCode ?? 0, range: headers['content-range'] ?? '' };
}

/** A server that ignores the range sends the whole disk: the rest is not waited for. */
async function bodyOf(response: IncomingMessage, length: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response) {
    if (!(part instanceof Uint8Array)) continue;
    parts.push(part);
    bytes += part.length;
    if (bytes > length) break;
  }
  return Buffer.concat(parts);
}

function wholeAnswer(where: string, name: string, offset: number, length: number, answer: Answer): FolderAnswer {
  const { status, range, bytes } = answer;
  if (status === 403)
    throw new VsphereDenied(`${where} does not let us read ${name} (privilege Datastore.FileManagement)`);
  if (status !== 206)
    throw new DatastoreUnreadable(`${where} does not hand out ${name} (status ${status}): ${meaningOf(status)}`);
  const [, from, to, all] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(range) ?? [];
  const given = Number(to) - Number(from) + 1;
  if (Number(from) !== offset || given !== bytes.length || given > length)
    throw new DatastoreUnreadable(`${where} gave other bytes of ${name} than it was asked for (${range})`);
  return { bytes, fileBytes: all === undefined || all === '*' ? null : Number(all) };
}

function meaningOf(status: number): string {
  if (status === 404) return 'it is not there';
  if (status === 200) return 'it ignores ranges, and the whole file is too much';
  return 'a running machine writes to it, or it is no file of a datastore that can be read this way';
}
