/**
 * An HTTP proxy of our own in front of a real server: it writes down what really goes over the wire, and hurts what it
 * is told to. Whole bodies pass through memory, so it is for objects of tens of MiB.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  Agent as PlainAgent,
  type RequestListener,
  request,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer, Agent as TlsAgent, request as tlsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LoopbackCertificate, makeCertificate } from './tls-certificate.ts';

export type Fault =
  /** The connection is reset after the first bytes of the request's body; the server never sees the request. */
  | 'reset-upload'
  /** The server does what it was asked to, and its answer never arrives. */
  | 'lose-answer'
  /** The connection is reset in the middle of the answer's body. */
  | 'reset-download'
  /** The answer's body ends in the middle, as if that had been all. */
  | 'truncate'
  /** One bit in the middle of the answer's body is the other one. */
  | 'flip-bit'
  /** One bit in the middle of the request's body is the other one when it reaches the server. */
  | 'flip-upload'
  /** The answer's body comes a byte at a time, and goes on like that for as long as anybody listens. */
  | 'drip'
  /** The proxy closes its own side of the connection while the request still comes in; the server never sees the request. */
  | 'half-close'
  /** `503`, as the store says it, without asking the server. */
  | 'slow-down'
  /** `429`, as the store says it, without asking the server. */
  | 'too-many'
  /** Nothing ever comes back; the server never sees the request. */
  | 'hang';

export interface SeenRequest {
  readonly method: string;
  /** Decoded, without the query; an upload to Google Cloud Storage, which names its object in its body, has that behind it. */
  readonly path: string;
  readonly query: string;
  /** `TrentService.Decrypt` and the like, where a service names its calls in a header. */
  readonly call: string;
  readonly bodyBytes: number;
  readonly fault: Fault | null;
  /** What the server answered; null: it was not asked. */
  readonly status: number | null;
}

export interface FaultRule {
  readonly fault: Fault;
  /** Requests that are hurt, of those that match; left out: the first one only. */
  readonly times?: number;
  when(request: { readonly method: string; readonly path: string; readonly query: string }): boolean;
}

export interface FaultProxyOptions {
  /** The server speaks TLS under this authority, and so does the proxy, under one of its own. */
  readonly upstreamCaFile?: string;
  /** How the store throttles; left out: as S3 does. */
  readonly throttles?: Throttles;
}

export type Throttles = 's3' | 'azure' | 'gcs';

export interface FaultProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** PEM file of the authority that signed the proxy's certificate; null: it does not speak TLS. */
  readonly caFile: string | null;
  /** In the order in which they arrived; each is added when it ended. */
  readonly seen: readonly SeenRequest[];
  /** Forgets what was seen. */
  forget(): void;
  hurt(rule: FaultRule): void;
  /** No rule is in force any more. */
  heal(): void;
  /** Called for each request once its body has arrived, and awaited before it is passed on. */
  beforeEach(watcher: (request: { readonly method: string; readonly path: string }) => Promise<void> | void): void;
}

const resetAfterBytes = 64 * 1024;
const dripPauseMs = 200;

interface Arrived {
  readonly method: string;
  readonly path: string;
  readonly query: string;
}

/** Where requests go on to. */
interface Upstream {
  readonly url: URL;
  readonly agent: PlainAgent;
  readonly send: typeof request;
}

async function upstreamOf(endpoint: string, caFile: string | undefined): Promise<Upstream> {
  const url = new URL(endpoint);
  if (caFile === undefined) return { url, agent: new PlainAgent({ keepAlive: true }), send: request };
  return { url, agent: new TlsAgent({ keepAlive: true, ca: await readFile(caFile) }), send: tlsRequest };
}

export async function startFaultProxy(endpoint: string, options: FaultProxyOptions = {}): Promise<FaultProxy> {
  const upstream = await upstreamOf(endpoint, options.upstreamCaFile);
  const certificate = options.upstreamCaFile === undefined ? null : await makeCertificate();
  const seen: SeenRequest[] = [];
  let rules: { readonly rule: FaultRule; left: number }[] = [];
  let watch: Parameters<FaultProxy['beforeEach']>[0] = () => undefined;

  const faultFor = (arrived: Arrived): Fault | null => {
    const found = rules.find(({ rule, left }) => left > 0 && rule.when(arrived));
    if (found === undefined) return null;
    found.left--;
    return found.rule.fault;
  };
  const listener = async (incoming: IncomingMessage, answer: ServerResponse) => {
    try {
      const arrived = await arrivedOf(incoming, upstream);
      const fault = faultFor(arrived);
      const note = (bodyBytes: number, status: number | null) =>
        seen.push({ ...arrived, call: String(incoming.headers['x-amz-target'] ?? ''), bodyBytes, fault, status });
      if (fault === 'reset-upload') {
        note(await resetUpload(incoming, reset), null);
        return;
      }
      if (fault === 'half-close') {
        answer.socket?.end();
        incoming.resume();
        note(0, null);
        return;
      }
      const body = await buffer(incoming);
      await watch(arrived);
      if (fault === 'hang' || fault === 'slow-down' || fault === 'too-many') {
        note(body.length, null);
        if (fault === 'slow-down' || fault === 'too-many') throttle(answer, fault, options.throttles ?? 's3');
        return;
      }
      if (fault === 'flip-upload') flipMiddle(body);
      const given = await passOn(upstream, incoming, body);
      note(body.length, given.status);
      await deliver(given, answer, fault, reset);
    } catch {
      // The client went away, or the server is gone: the client sees a broken connection, as it would without us.
      answer.destroy();
    }
  };
  const { server, port, reset } = await listen(listener, certificate);
  return {
    endpoint: `${certificate === null ? 'http' : 'https'}://127.0.0.1:${port}`,
    caFile: certificate?.caFile ?? null,
    seen,
    forget: () => void seen.splice(0),
    hurt: (rule) => void rules.push({ rule, left: rule.times ?? 1 }),
    heal: () => {
      rules = [];
    },
    beforeEach: (watcher) => {
      watch = watcher;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      upstream.agent.destroy();
      await once(server, 'close');
      await certificate?.[Symbol.asyncDispose]();
    },
  };
}

async function listen(listener: RequestListener, certificate: LoopbackCertificate | null) {
  const server =
    certificate === null
      ? createServer(listener)
      : createTlsServer(
          { cert: await readFile(certificate.certFile), key: await readFile(certificate.keyFile) },
          listener,
        );
  const beneath = new Map<number | undefined, Socket>();
  server.on('connection', (socket: Socket) => {
    const { remotePort } = socket;
    beneath.set(remotePort, socket);
    socket.once('close', () => beneath.delete(remotePort));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the fault proxy has no port');
  const reset: Reset = (socket) => beneath.get(socket?.remotePort)?.resetAndDestroy();
  return { server, port: address.port, reset };
}

async function arrivedOf(incoming: IncomingMessage, { url }: Upstream): Promise<Arrived> {
  const { pathname, search } = new URL(incoming.url ?? '/', url);
  const named = search.includes('uploadType=multipart') ? `/${await objectNameIn(incoming)}` : '';
  return { method: incoming.method ?? '', path: decodeURIComponent(pathname) + named, query: search };
}

/** In the first part of the body, which is read and put back. */
async function objectNameIn(incoming: IncomingMessage): Promise<string> {
  await once(incoming, 'readable');
  const first: Buffer = incoming.read() ?? Buffer.alloc(0);
  incoming.unshift(first);
  return /"name":"([^"]*)"/.exec(first.toString('latin1', 0, 2_000))?.[1] ?? '';
}

/** Under TLS only the connection beneath can be reset. */
type Reset = (socket: Socket | null) => void;

async function resetUpload(incoming: IncomingMessage, reset: Reset): Promise<number> {
  let bytes = 0;
  for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
    bytes += (chunk as Uint8Array).length;
    if (bytes >= resetAfterBytes) break;
  }
  reset(incoming.socket);
  return bytes;
}

interface Given {
  readonly status: number;
  readonly headers: string[];
  readonly body: Buffer;
}

/** The headers go on as they came: the signature covers the host name that the client used. */
async function passOn({ url, agent, send }: Upstream, incoming: IncomingMessage, body: Buffer): Promise<Given> {
  const outgoing = send({
    agent,
    hostname: url.hostname,
    port: url.port,
    method: incoming.method,
    path: incoming.url,
    headers: incoming.rawHeaders,
    setHost: false,
  });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  return { status: response.statusCode ?? 502, headers: response.rawHeaders, body: await buffer(response) };
}

async function deliver(
  { status, headers, body }: Given,
  answer: ServerResponse,
  fault: Fault | null,
  reset: Reset,
): Promise<void> {
  if (fault === 'lose-answer') {
    reset(answer.socket);
    return;
  }
  if (fault === 'flip-bit') flipMiddle(body);
  answer.writeHead(status, headers);
  if (fault === 'drip') {
    await drip(body, answer);
    return;
  }
  if (fault !== 'truncate' && fault !== 'reset-download') {
    answer.end(body);
    return;
  }
  answer.write(body.subarray(0, body.length >> 1), () => {
    if (fault === 'truncate') answer.socket?.end();
    else reset(answer.socket);
  });
}

async function drip(body: Buffer, answer: ServerResponse): Promise<void> {
  for (const byte of body) {
    if (answer.destroyed || answer.socket === null) return;
    answer.write(Uint8Array.of(byte));
    await sleep(dripPauseMs);
  }
  answer.end();
}

function flipMiddle(body: Buffer): void {
  const middle = body.length >> 1;
  if (body.length > 0) body[middle] = (body[middle] ?? 0) ^ 0x10;
}

type Said = Readonly<Record<'slow-down' | 'too-many', readonly [code: string, form: 'xml' | 'json']>>;

const said: Readonly<Record<Throttles, Said>> = {
  s3: { 'slow-down': ['SlowDown', 'xml'], 'too-many': ['TooManyRequests', 'xml'] },
  azure: { 'slow-down': ['ServerBusy', 'xml'], 'too-many': ['TooManyRequests', 'xml'] },
  gcs: { 'slow-down': ['backendError', 'json'], 'too-many': ['rateLimitExceeded', 'json'] },
};

function throttle(answer: ServerResponse, fault: 'slow-down' | 'too-many', throttles: Throttles): void {
  const [code, form] = said[throttles][fault];
  const status = fault === 'slow-down' ? 503 : 429;
  const message = 'Please reduce your request rate.';
  const body =
    form === 'xml'
      ? `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`
      : JSON.stringify({ error: { code: status, message, errors: [{ reason: code, message }] } });
  answer.writeHead(status, {
    'content-type': `application/${form}`,
    'content-length': body.length,
    'retry-after': '0',
    ...(throttles === 'azure' && { 'x-ms-error-code': code }),
  });
  answer.end(body);
}
