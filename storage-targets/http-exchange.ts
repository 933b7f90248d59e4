import { once } from 'node:events';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';

import { DripLimit } from './drip-limit.ts';
import { StoreUnavailable } from './errors.ts';
import { connectTimeoutMs, type HttpAgents, silenceTimeoutMs } from './http-agents.ts';

export interface HttpRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent one after the other, without a copy. */
  readonly body: readonly (Uint8Array | Readable)[];
}

export interface HttpAnswer {
  readonly status: number;
  /** By name in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Whoever gets it reads or destroys it. */
  readonly body: IncomingMessage;
}

/** Answers that are no objects: listings and errors. */
const textBytesMax = 16 * 1024 * 1024;

/**
 * One request over one connection: no redirects, no retries. An abort ends it even when it was answered before all of it
 * was sent, which the clients of the SDKs do not promise: what is still to be sent lies in memory that will be used anew.
 */
export async function exchange(agents: HttpAgents, request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
  signal.throwIfAborted();
  const outgoing = open(agents, request);
  const abort = () => outgoing.destroy(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  outgoing.once('close', () => signal.removeEventListener('abort', abort));
  giveUpOnSilence(outgoing, new URL(request.url).host);
  // It still emits errors once it was answered; the answer's body reports them, too.
  outgoing.on('error', () => undefined);
  const answered = once(outgoing, 'response');
  const sent = send(outgoing, request.body).catch((error: Error) => void outgoing.destroy(error));
  giveUpOnSlowHead(outgoing, sent, new URL(request.url).host);
  const [body] = (await answered) as [IncomingMessage];
  const status = body.statusCode ?? 0;
  // Whoever was told that all is stored may use the memory again.
  if (status < 300) await sent;
  return { status, headers: headersOf(body), body };
}

export async function answerText({ body }: HttpAnswer): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  using drip = new DripLimit((reason) => body.destroy(reason));
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    drip.note(chunk.length);
    if (bytes > textBytesMax) throw new StoreUnavailable(`the store answers with more than ${textBytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function open({ httpAgent, httpsAgent }: HttpAgents, { url, method, headers }: HttpRequest): ClientRequest {
  const options = { method, headers, timeout: silenceTimeoutMs };
  return url.startsWith('https:')
    ? httpsRequest(url, { ...options, agent: httpsAgent })
    : httpRequest(url, { ...options, agent: httpAgent });
}

function giveUpOnSilence(outgoing: ClientRequest, host: string): void {
  outgoing.once('timeout', () =>
    outgoing.destroy(new StoreUnavailable(`${host}: not a byte in ${silenceTimeoutMs} ms`)),
  );
  outgoing.once('socket', (socket) => {
    if (!socket.connecting) return;
    const late = () => outgoing.destroy(new StoreUnavailable(`${host}: no connection in ${connectTimeoutMs} ms`));
    const timer = setTimeout(late, connectTimeoutMs);
    const over = () => clearTimeout(timer);
    socket.once('connect', over).once('close', over);
  });
}

/** A head that comes byte by byte is no silence. */
function giveUpOnSlowHead(outgoing: ClientRequest, sent: Promise<void>, host: string): void {
  const late = () => outgoing.destroy(new StoreUnavailable(`${host}: no head of an answer in ${silenceTimeoutMs} ms`));
  const over = new AbortController();
  outgoing.once('response', () => over.abort()).once('close', () => over.abort());
  void sent.then(() => {
    if (over.signal.aborted) return;
    const timer = setTimeout(late, silenceTimeoutMs);
    over.signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  });
}

/** Resolves when all of it has left our memory, or the request is over. */
async function send(outgoing: ClientRequest, parts: HttpRequest['body']): Promise<void> {
  const over = new AbortController();
  outgoing.once('close', () => over.abort());
  const write = async (piece: Uint8Array): Promise<void> => {
    if (!outgoing.write(piece) && !over.signal.aborted) await once(outgoing, 'drain', { signal: over.signal });
  };
  try {
    for (const part of parts) {
      if (part instanceof Readable) for await (const piece of part) await write(piece);
      else if (part.length > 0) await write(part);
    }
    const flushed = once(outgoing, 'finish', { signal: over.signal });
    outgoing.end();
    await flushed;
  } catch (error) {
    if (!over.signal.aborted) throw error;
  }
}

function headersOf({ headers }: IncomingMessage): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) if (typeof value === 'string') found[name] = value;
  return found;
}
