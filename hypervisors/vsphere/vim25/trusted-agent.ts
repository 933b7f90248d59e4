import { createHash, type X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import type { Duplex } from 'node:stream';
import { getCACertificates, TLSSocket } from 'node:tls';
import { VsphereTimedOut, VsphereUntrusted } from '../vsphere-errors.ts';

/** Connections to the one server that is meant: each is checked before the first byte is sent on it. */

export interface ServerTrust {
  /** SHA-256 of the server's certificate, 64 lower-case hex digits: this certificate and no other is trusted, whoever signed it. */
  readonly thumbprint: string | null;
  /** PEM file of an authority that is trusted besides the system's; not asked where there is a thumbprint. */
  readonly caFile: string | null;
}

export interface AgentSettings {
  readonly trust: ServerTrust;
  /** `http://[user:password@]host:port` of a CONNECT proxy; TLS goes through it end to end. */
  readonly proxy: { reveal(): string } | null;
  readonly socketsMax: number;
  /** Of each connection that was found to lead to the right server. */
  readonly onTrusted: (certificate: X509Certificate) => void;
}

const connectTimeoutMs = 15_000;
/** A disk is read for hours between two calls, and firewalls forget idle connections without a word: none is kept for long. */
const idleTimeoutMs = 10_000;

/** `where`: of the server, for messages. Throws VsphereUntrusted where the authority's file can't be read. */
export function trustedAgent(where: string, { trust, proxy, socketsMax, onTrusted }: AgentSettings): Agent {
  const agent = new Agent({
    keepAlive: true,
    maxSockets: socketsMax,
    timeout: idleTimeoutMs,
    // A resumed session shows no certificate, so that there would be nothing to check.
    maxCachedSessions: 0,
    ...verification(where, trust),
    ...(proxy !== null && { proxyEnv: { HTTPS_PROXY: proxy.reveal() } }),
  });
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, done = () => undefined) => {
    const decide = (error: Error | null, socket: Duplex): void => {
      const refusal = error ?? refusalOf(where, socket, trust, onTrusted);
      if (refusal !== null) socket?.destroy();
      done(refusal, socket);
    };
    const socket = connect(options, decide);
    // Through a proxy, Node itself calls when TLS is up.
    if (proxy === null && socket instanceof TLSSocket) whenSecure(where, socket, (error) => decide(error, socket));
    return undefined;
  };
  return agent;
}

/** With a thumbprint Node's own check, which needs an authority, gives way to ours in `refusalOf`. */
function verification(where: string, { thumbprint, caFile }: ServerTrust): object {
  if (thumbprint !== null) return { rejectUnauthorized: false };
  if (caFile === null) return {};
  try {
    return { ca: [...getCACertificates('default'), readFileSync(caFile, 'utf8')] };
  } catch (cause) {
    throw new VsphereUntrusted(`${where}: the CA file ${caFile} can't be read: correct its path or its permissions`, {
      cause,
    });
  }
}

/** Null for the right server; fails closed where a connection shows no certificate. */
function refusalOf(
  where: string,
  socket: Duplex,
  { thumbprint }: ServerTrust,
  onTrusted: AgentSettings['onTrusted'],
): Error | null {
  const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
  if (certificate === undefined) return new VsphereUntrusted(`${where} showed no certificate`);
  const shown = thumbprintOf(certificate);
  if (thumbprint !== null && shown !== thumbprint)
    return new VsphereUntrusted(
      `${where} shows another certificate than the one that is pinned: SHA-256 ${spelled(shown)}, valid from ${certificate.validFrom}`,
    );
  onTrusted(certificate);
  return null;
}

/** SHA-256, 64 lower-case hex digits. */
export function thumbprintOf(certificate: X509Certificate): string {
  return createHash('sha256').update(certificate.raw).digest('hex');
}

/** `AA:BB:…`, as certificates show it. */
export function spelled(thumbprint: string): string {
  return (thumbprint.toUpperCase().match(/../g) ?? []).join(':');
}

function whenSecure(where: string, socket: TLSSocket, settle: (error: Error | null) => void): void {
  const late = (): void => end(new VsphereTimedOut(`${where} took no connection within ${connectTimeoutMs / 1000} s`));
  const timer = setTimeout(late, connectTimeoutMs);
  const end = (error: Error | null): void => {
    clearTimeout(timer);
    socket.off('secureConnect', secured);
    socket.off('error', end);
    // Whatever it says after this is about a connection that nobody uses.
    if (error !== null) socket.on('error', () => undefined);
    settle(error);
  };
  const secured = (): void => end(null);
  socket.once('secureConnect', secured);
  socket.once('error', end);
}
