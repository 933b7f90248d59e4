import type { IncomingMessage } from 'node:http';
import { type Agent, request } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { VsphereTimedOut, VsphereUnreachable, VsphereUntrusted } from '../vsphere-errors.ts';

/** One PUT of a file of any size: read as fast as the server takes it, and no faster. */

/** Without a byte taken. */
const idleTimeoutMs = 300_000;

/** What is to be sent, from its beginning. */
export type Content = () => AsyncIterable<Uint8Array>;

export interface SendTo {
  /** For messages. */
  readonly where: string;
  readonly agent: Agent;
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly cookie: string;
}

/** Throws what `content` throws, VsphereUnreachable, VsphereUntrusted or VsphereTimedOut. */
export async function sendFile(
  { where, agent, host, port, path, cookie }: SendTo,
  bytes: number,
  content: Content,
  signal: AbortSignal,
): Promise<{ readonly status: number }> {
  signal.throwIfAborted();
  const headers = { cookie, 'content-length': String(bytes), 'content-type': 'application/octet-stream' };
  const sent = request({ agent, host, port, path, method: 'PUT', headers, signal });
  sent.setTimeout(idleTimeoutMs, () =>
    sent.destroy(new VsphereTimedOut(`${where} took nothing for ${idleTimeoutMs / 1000} s`)),
  );
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve);
    sent.once('error', reject);
    // A request that is given up before it is connected says no more than this.
    sent.once('close', () => reject(new Error('the request was given up')));
  });
  const refused = new AbortController();
  const answer = answered.then(async (response) => {
    // A server that answers before it has everything takes no more: its answer says why.
    if (!sent.writableFinished) refused.abort();
    else response.resume();
    return { status: response.statusCode ?? 0 };
  });
  const failures: unknown[] = [];
  const sending = pipeline(Readable.from(pieces(content, failures)), sent, { signal: refused.signal });
  const [, end] = await Promise.allSettled([sending, answer]);
  signal.throwIfAborted();
  if (failures.length > 0) throw failures[0];
  if (end.status === 'fulfilled') return end.value;
  const cause: unknown = end.reason;
  if (cause instanceof VsphereUntrusted || cause instanceof VsphereTimedOut) throw cause;
  throw new VsphereUnreachable(`${where} broke off while a file was sent to it`, { cause });
}

/** What the content throws is kept: a connection that breaks is thrown into the same stream. */
async function* pieces(content: Content, failures: unknown[]): AsyncGenerator<Uint8Array> {
  const source = content()[Symbol.asyncIterator]();
  for (;;) {
    const next = await source.next().catch((error: unknown) => {
      failures.push(error);
      throw error;
    });
    if (next.done === true) return;
    yield next.value;
  }
}
