import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import type { HttpDouble } from './http-double.ts';

/** What reached the proxy, as the real server would see it. */
export interface Asked {
  readonly method: string;
  /** Decoded. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface Given {
  readonly status: number;
  /** By name in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** A real server of an earlier start, of which a part is missing. */
export interface RealServer {
  readonly endpoint: string;
  readonly caFile: string | null;
}

/** On loopback, without TLS, in this process: answers by itself what the real server does not know, and passes on all else. */
export async function startStubProxy(
  real: RealServer,
  answer: (asked: Asked, passOn: () => Promise<Given>) => Promise<Given>,
): Promise<HttpDouble> {
  const server = createServer(async (incoming, response) => {
    try {
      const body = await buffer(incoming);
      const { pathname, searchParams } = new URL(incoming.url ?? '/', real.endpoint);
      const { method = '', headers } = incoming;
      const asked = { method, path: decodeURIComponent(pathname), query: searchParams, headers, body };
      const given = await answer(asked, () => passedOn(real, incoming, body));
      response.writeHead(given.status, given.headers).end(given.body);
    } catch {
      // The client went away, or the server is gone: the client sees a broken connection, as it would without us.
      response.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** The headers go on as they came: signatures cover some of them. */
async function passedOn({ endpoint, caFile }: RealServer, incoming: IncomingMessage, body: Buffer): Promise<Given> {
  const { protocol, hostname, port } = new URL(endpoint);
  const { method, url: path, rawHeaders: headers } = incoming;
  const options = { hostname, port, method, path, headers, setHost: false };
  const outgoing =
    protocol === 'https:'
      ? httpsRequest({ ...options, ...(caFile !== null && { ca: readFileSync(caFile) }) })
      : httpRequest(options);
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const given: Record<string, string> = {};
  for (const [name, value] of Object.entries(response.headers))
    if (name !== 'transfer-encoding' && name !== 'connection') given[name] = String(value);
  return { status: response.statusCode ?? 502, headers: given, body: await buffer(response) };
}
