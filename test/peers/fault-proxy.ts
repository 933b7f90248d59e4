/**
 * An HTTP proxy of our own in front of a real server: it writes down what really goes over the wire, and hurts what it
 * is told to. Whole bodies pass through memory, so it is for objects of tens of MiB.
 */
import { once } from 'node:events';
import { createServer, Agent as HttpAgent, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

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
  /** `503 SlowDown`, without asking the server. */
  | 'slow-down'
  /** Nothing ever comes back; the server never sees the request. */
  | 'hang';

export interface SeenRequest {
  readonly method: string;
  /** Decoded, without the query. */
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

export interface FaultProxy extends AsyncDisposable {
  readonly endpoint: string;
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

interface Arrived {
  readonly method: string;
  readonly path: string;
  readonly query: string;
}

export async function startFaultProxy(upstream: string): Promise<FaultProxy> {
  const agent = new HttpAgent({ keepAlive: true });
  const seen: SeenRequest[] = [];
  let rules: { readonly rule: FaultRule; left: number }[] = [];
  let watch: Parameters<FaultProxy['beforeEach']>[0] = () => undefined;

  const faultFor = (arrived: Arrived): Fault | null => {
    const found = rules.find(({ rule, left }) => left > 0 && rule.when(arrived));
    if (found === undefined) return null;
    found.left--;
    return found.rule.fault;
  };
  const server = createServer(async (incoming, answer) => {
    const { pathname, search } = new URL(incoming.url ?? '/', upstream);
    const arrived = { method: incoming.method ?? '', path: decodeURIComponent(pathname), query: search };
    const fault = faultFor(arrived);
    const note = (bodyBytes: number, status: number | null) =>
      seen.push({ ...arrived, call: String(incoming.headers['x-amz-target'] ?? ''), bodyBytes, fault, status });
    try {
      if (fault === 'reset-upload') {
        note(await resetUpload(incoming), null);
        return;
      }
      const body = await buffer(incoming);
      await watch(arrived);
      if (fault === 'hang' || fault === 'slow-down') {
        note(body.length, null);
        if (fault === 'slow-down') slowDown(answer);
        return;
      }
      if (fault === 'flip-upload') flipMiddle(body);
      const given = await passOn(upstream, agent, incoming, body);
      note(body.length, given.status);
      deliver(given, answer, fault);
    } catch {
      // The client went away, or the server is gone: the client sees a broken connection, as it would without us.
      answer.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the fault proxy has no port');
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
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
      agent.destroy();
      await once(server, 'close');
    },
  };
}

async function resetUpload(incoming: IncomingMessage): Promise<number> {
  let bytes = 0;
  for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
    bytes += (chunk as Uint8Array).length;
    if (bytes >= resetAfterBytes) break;
  }
  incoming.socket.resetAndDestroy();
  return bytes;
}

interface Given {
  readonly status: number;
  readonly headers: string[];
  readonly body: Buffer;
}

/** The headers go on as they came: the signature covers the host name that the client used. */
async function passOn(upstream: string, agent: HttpAgent, incoming: IncomingMessage, body: Buffer): Promise<Given> {
  const { hostname, port } = new URL(upstream);
  const outgoing = request({
    agent,
    hostname,
    port,
    method: incoming.method,
    path: incoming.url,
    headers: incoming.rawHeaders,
    setHost: false,
  });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  return { status: response.statusCode ?? 502, headers: response.rawHeaders, body: await buffer(response) };
}

function deliver({ status, headers, body }: Given, answer: ServerResponse, fault: Fault | null): void {
  if (fault === 'lose-answer') {
    answer.socket?.resetAndDestroy();
    return;
  }
  if (fault === 'flip-bit') flipMiddle(body);
  answer.writeHead(status, headers);
  if (fault !== 'truncate' && fault !== 'reset-download') {
    answer.end(body);
    return;
  }
  answer.write(body.subarray(0, body.length >> 1), () => {
    if (fault === 'truncate') answer.socket?.end();
    else answer.socket?.resetAndDestroy();
  });
}

function flipMiddle(body: Buffer): void {
  const middle = body.length >> 1;
  if (body.length > 0) body[middle] = (body[middle] ?? 0) ^ 0x10;
}

function slowDown(answer: ServerResponse): void {
  const body =
    '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>';
  answer.writeHead(503, { 'content-type': 'application/xml', 'content-length': body.length, 'retry-after': '0' });
  answer.end(body);
}
