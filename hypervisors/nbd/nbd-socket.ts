import { connect as connectSocket, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { NbdConnectionLost, NbdTlsUntrusted, NbdUnreachable } from './nbd-errors.ts';
import { describeNbdAddress, type NbdAddress } from './nbd-uri.ts';

/** Who the server must be, and who we are. */
export interface NbdTls {
  /** Certificate authorities as PEM. Null: those that Node trusts. */
  readonly ca: string | null;
  /** What we show to a server that asks for it. */
  readonly client: { readonly certificate: string; readonly key: string } | null;
}

export interface BytesReceiver {
  /** Never throws. The memory is used again as soon as this returns. */
  bytes(chunk: Uint8Array): void;
  /** Where the next bytes go: some memory of the receiver's own, or null for the socket's. Not asked under TLS. */
  nextTarget(): Uint8Array | null;
  /** At most once, and the last call. */
  ended(error: Error): void;
}

const keepAliveAfterMs = 15_000;
/** Small: what arrives here is copied; payloads go where the receiver says. */
const scratchBytes = 16 * 1024;

/** Bytes both ways, first in plain, then maybe in TLS. Whoever opens it destroys it. */
export class NbdSocket {
  readonly #address: NbdAddress;
  readonly #scratch = Buffer.allocUnsafeSlow(scratchBytes);
  #socket: Socket | TLSSocket;
  #receiver: BytesReceiver | null = null;
  #lost: Error | null = null;
  /** While a function waits for something of the socket, it takes the error in place of the receiver. */
  #waiting: ((error: Error) => void) | null = null;

  constructor(address: NbdAddress) {
    this.#address = address;
    const { transport } = address;
    const where = transport.kind === 'unix' ? { path: transport.path } : { host: transport.host, port: transport.port };
    // A plain socket that becomes TLS can't have memory of its own: Node reads that one through streams.
    const onread = {
      buffer: () => this.#receiver?.nextTarget() ?? this.#scratch,
      callback: (count: number, memory: Uint8Array) => {
        this.#receive(count === memory.length ? memory : memory.subarray(0, count));
        return true;
      },
    };
    this.#socket = connectSocket({ ...where, noDelay: true, ...(address.tls ? {} : { onread }) });
    this.#listen();
    if (address.tls) this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk));
  }

  set receiver(receiver: BytesReceiver) {
    this.#receiver = receiver;
    if (this.#lost !== null) receiver.ended(this.#lost);
  }

  /** Throws NbdUnreachable. */
  async connected(): Promise<void> {
    await this.#wait('connect').catch((cause: unknown) => {
      const code = codeOf(cause) ?? 'no reason given';
      throw new NbdUnreachable(
        `${describeNbdAddress(this.#address)}: nobody answers (${code}): check the address, and that the server runs`,
        { cause },
      );
    });
    this.#socket.setKeepAlive(true, keepAliveAfterMs);
  }

  /** Goes on in TLS, with the server's certificate verified, or throws NbdTlsUntrusted. */
  async startTls(tls: NbdTls): Promise<void> {
    const { serverName } = this.#address;
    const plain = this.#socket;
    plain.removeAllListeners('data');
    // Node takes no address for the server name indication, but compares the certificate with `host`.
    const name = isIP(serverName) === 0 ? { servername: serverName, host: serverName } : { host: serverName };
    this.#socket = connectTls({
      socket: plain,
      ...name,
      rejectUnauthorized: true,
      ...(tls.ca === null ? {} : { ca: tls.ca }),
      ...(tls.client === null ? {} : { cert: tls.client.certificate, key: tls.client.key }),
    });
    this.#listen();
    await this.#wait('secureConnect').catch((cause: unknown) => {
      throw cause instanceof NbdTlsUntrusted ? cause : this.#untrusted(cause);
    });
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk));
  }

  /** Whoever gave the bytes leaves them alone until `sent` is called: with true once the kernel has them, else false. */
  send(parts: readonly Uint8Array[], sent?: (whole: boolean) => void): void {
    const last = parts.length - 1;
    parts.forEach((part, index) => {
      if (index === last && sent !== undefined) this.#socket.write(part, (error) => sent(!error));
      else this.#socket.write(part);
    });
  }

  /**
   * What is sent until the socket has been read empty leaves in one system call. A call for each request, made as its
   * predecessor's answer arrives, took half of this client's time (docs/decisions/0042).
   */
  gather(): void {
    if (this.#socket.writableCorked > 0) return;
    const socket = this.#socket;
    socket.cork();
    setImmediate(() => socket.uncork());
  }

  /** Sends these last bytes and closes; does not wait for the server's answer longer than that. */
  async end(last: Uint8Array, timeoutMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      if (this.#socket.closed) resolve();
      this.#socket.once('close', () => resolve());
    });
    const timer = setTimeout(() => this.#socket.destroy(), timeoutMs);
    this.#socket.end(last);
    await closed;
    clearTimeout(timer);
  }

  /** After this nothing is received, nor written into anybody's memory. */
  destroy(): void {
    this.#receiver = null;
    this.#socket.destroy();
  }

  #listen(): void {
    const socket = this.#socket;
    socket.on('error', (cause) => this.#ended(socket, this.#lostBy(cause)));
    socket.on('end', () => this.#ended(socket, this.#lostBy(null)));
    socket.on('close', () => this.#ended(socket, this.#lostBy(null)));
  }

  #receive(chunk: Uint8Array): void {
    this.#receiver?.bytes(chunk);
  }

  #ended(socket: Socket, error: Error): void {
    if (socket !== this.#socket || this.#lost !== null) return;
    this.#lost = error;
    socket.destroy();
    if (this.#waiting !== null) this.#waiting(error);
    else this.#receiver?.ended(error);
  }

  async #wait(event: 'connect' | 'secureConnect'): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (this.#lost !== null) reject(this.#lost);
    this.#waiting = (error) => reject(error.cause ?? error);
    this.#socket.once(event, () => resolve());
    try {
      await promise;
    } finally {
      this.#waiting = null;
    }
  }

  /** A certificate of ours that the server refuses shows only after the TLS handshake. */
  #lostBy(cause: Error | null): Error {
    const where = describeNbdAddress(this.#address);
    const code = codeOf(cause);
    if (code?.startsWith('ERR_SSL_')) return this.#untrusted(cause);
    return cause === null
      ? new NbdConnectionLost(`${where}: the server closed the connection: check that it still runs, and its log`)
      : new NbdConnectionLost(
          `${where}: the connection broke (${code ?? cause.name}): check the server and the network`,
          {
            cause,
          },
        );
  }

  #untrusted(cause: unknown): NbdTlsUntrusted {
    const code = codeOf(cause) ?? 'the server closed the connection';
    return new NbdTlsUntrusted(
      `${describeNbdAddress(this.#address)}: no trusted TLS with ${this.#address.serverName} (${code}): ${tlsHint(code)}`,
      { cause },
    );
  }
}

function tlsHint(code: string): string {
  if (code === 'CERT_HAS_EXPIRED') return "renew the server's certificate";
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return 'its certificate is for another name: use that one, or say it as tls-hostname';
  if (code.startsWith('ERR_SSL_')) return 'check the client certificate, and what the server accepts';
  return "check the server's certificate and the certificate authority that is configured for it";
}

function codeOf(cause: unknown): string | null {
  return cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : null;
}
