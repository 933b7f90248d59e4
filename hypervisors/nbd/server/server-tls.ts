import { once } from 'node:events';
import type { Socket } from 'node:net';
import { createSecureContext, createServer, type TLSSocket } from 'node:tls';
import { NbdTlsUntrusted } from '../nbd-errors.ts';
import { NbdListenFailed } from './listen.ts';

/** What the server shows, and whom it lets in. Everything as PEM. */
export interface NbdServerTls {
  readonly certificate: string;
  readonly key: string;
  /** Only clients with a certificate of this authority get in. Null: everybody who reaches the port. */
  readonly clientCa: string | null;
}

/** Before anybody connects. Throws NbdListenFailed. */
export function checkTls({ certificate, key, clientCa }: NbdServerTls): void {
  try {
    createSecureContext({ cert: certificate, key, ...(clientCa !== null && { ca: clientCa }) });
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new NbdListenFailed(
      `the TLS certificate and its key can't be used (${code}): check that they belong together`,
      {
        cause,
      },
    );
  }
}

/** Goes on in TLS on a client's socket. Throws NbdTlsUntrusted; the socket is the caller's to destroy. */
export async function acceptTls(plain: Socket, tls: NbdServerTls, where: string): Promise<TLSSocket> {
  const { certificate, key, clientCa } = tls;
  // Never listens: it is what Node checks client certificates with.
  const server = createServer({
    cert: certificate,
    key,
    minVersion: 'TLSv1.2',
    ...(clientCa !== null && { ca: clientCa, requestCert: true, rejectUnauthorized: true }),
  });
  const { promise: refused, reject } = Promise.withResolvers<never>();
  const failed = (cause: Error) => {
    const code = 'code' in cause ? String(cause.code) : cause.message;
    reject(new NbdTlsUntrusted(`${where}: no TLS with this client (${code})`, { cause }));
  };
  server.once('tlsClientError', failed);
  plain.once('close', () => reject(new NbdTlsUntrusted(`${where}: the client went away during the TLS handshake`)));
  const secured = once(server, 'secureConnection');
  server.emit('connection', plain);
  const [socket]: [TLSSocket] = await Promise.race([refused, secured as Promise<[TLSSocket]>]);
  return socket;
}
