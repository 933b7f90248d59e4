import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { NbdConnectionLost, NbdTimedOut } from '../nbd-errors.ts';
import { ByteBudget } from './byte-budget.ts';
import { ClientBytes } from './client-bytes.ts';
import { listen, type NbdListenPlace } from './listen.ts';
import type { NbdExportHandler } from './nbd-export-handler.ts';
import { ServerHandshake } from './server-handshake.ts';
import { acceptTls, checkTls, type NbdServerTls } from './server-tls.ts';
import { Transmission } from './transmission.ts';

export interface NbdServerBounds {
  /** Beyond that a client is sent away. */
  readonly connectionsMax: number;
  /** Of one connection. */
  readonly requestsInFlightMax: number;
  /** Payload in memory, of one connection. */
  readonly connectionBytesMax: number;
  /** Of all connections together. */
  readonly bytesMax: number;
  /** From the first packet until an export is open, TLS included. */
  readonly handshakeMs: number;
  /** How long a client may be silent in the middle of a request, or take nothing of an answer. */
  readonly stallMs: number;
}

const nbdServerBounds: NbdServerBounds = {
  connectionsMax: 64,
  requestsInFlightMax: 64,
  connectionBytesMax: 32 * 1024 * 1024,
  bytesMax: 64 * 1024 * 1024,
  handshakeMs: 20_000,
  stallMs: 60_000,
};

export interface NbdServerOptions {
  readonly place: NbdListenPlace;
  /** Different names. */
  readonly exports: readonly NbdExportHandler[];
  /** What clients get that name none. Null: they have to name one. */
  readonly defaultExport: string | null;
  /** Given: nothing is told or served without TLS. */
  readonly tls: NbdServerTls | null;
  readonly bounds?: Partial<NbdServerBounds>;
  readonly events?: NbdServerEvents;
}

/** For logs; each takes a line. */
export interface NbdServerEvents {
  /** An export was opened. */
  connected?(client: string): void;
  /** A handler could not serve this request, and the client was told so. */
  requestFailed?(client: string, request: string, error: unknown): void;
  /** The connection is over. An error says that the client broke off, broke the protocol, or was too slow. */
  disconnected?(client: string, error: unknown): void;
}

const goodbyeMs = 2_000;
/** Further clients in the middle of a handshake push out the oldest of those. */
const handshakesMax = 32;

/** Serves disks over NBD. Whoever opens it disposes it: that ends every connection, and waits for what the handlers still do. */
export class NbdServer implements AsyncDisposable {
  readonly #options: NbdServerOptions;
  readonly #bounds: NbdServerBounds;
  readonly #server: Server;
  readonly #budget: ByteBudget;
  readonly #clients = new Map<ClientBytes, Promise<void>>();
  readonly #handshakes = new Set<ClientBytes>();
  #accepted = 0;

  private constructor(options: NbdServerOptions) {
    this.#options = options;
    this.#bounds = { ...nbdServerBounds, ...options.bounds };
    this.#budget = new ByteBudget(this.#bounds.bytesMax);
    this.#server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 15_000 }, (socket) =>
      this.#accept(socket),
    );
  }

  /** Clients may connect once it resolves. Throws NbdListenFailed. */
  static async listen(options: NbdServerOptions): Promise<NbdServer> {
    if (options.tls !== null) checkTls(options.tls);
    const server = new NbdServer(options);
    await listen(server.#server, options.place, options.tls !== null);
    return server;
  }

  /** The port that was given out where any would do. */
  get place(): NbdListenPlace {
    const address = this.#server.address();
    const { place } = this.#options;
    return place.kind === 'tcp' && typeof address === 'object' && address !== null
      ? { ...place, port: address.port }
      : place;
  }

  /** Open connections, those in the middle of a handshake included. */
  get connections(): number {
    return this.#clients.size;
  }

  /** Payload that is in memory. */
  get heldBytes(): number {
    return this.#budget.taken;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const client of this.#clients.keys()) client.destroy(new NbdConnectionLost('the server ends'));
    await Promise.all(this.#clients.values());
    await closed;
  }

  #accept(socket: Socket): void {
    // A client that vanishes in this very moment must not end the process.
    socket.on('error', () => undefined);
    if (this.#clients.size - this.#handshakes.size >= this.#bounds.connectionsMax) {
      socket.destroy();
      return;
    }
    this.#accepted += 1;
    const name = `NBD client ${this.#accepted}${socket.remoteAddress === undefined ? '' : ` (${socket.remoteAddress})`}`;
    const client = new ClientBytes(socket, name);
    this.#clients.set(
      client,
      this.#serve(client, name).finally(() => this.#clients.delete(client)),
    );
  }

  /** Never rejects. */
  async #serve(client: ClientBytes, name: string): Promise<void> {
    let error: unknown = null;
    try {
      await this.#talk(client, name);
      await client.end(goodbyeMs);
    } catch (thrown) {
      // Whoever sent it away knows why better than what broke by it.
      error = client.gone.aborted ? client.gone.reason : thrown;
    } finally {
      client.destroy(new NbdConnectionLost(`${name}: over`));
    }
    this.#options.events?.disconnected?.(name, error);
  }

  async #talk(client: ClientBytes, name: string): Promise<void> {
    const agreement = await this.#shakeHands(client, name);
    if (agreement === null) return;
    if (this.#clients.size - this.#handshakes.size > this.#bounds.connectionsMax)
      throw new NbdConnectionLost(`${name}: there are ${this.#bounds.connectionsMax} clients already`);
    const { events } = this.#options;
    events?.connected?.(name);
    // A client that stops in the middle would keep memory that others wait for.
    const { stallMs } = this.#bounds;
    client.watchStalls(stallMs, () =>
      client.destroy(new NbdTimedOut(`${name}: nothing moved for ${stallMs / 1000} s in the middle of a request`)),
    );
    const bounds = { ...this.#bounds, budget: this.#budget };
    const failed = (request: string, error: unknown) => events?.requestFailed?.(name, request, error);
    await new Transmission(client, agreement, bounds, name, failed).run();
  }

  async #shakeHands(client: ClientBytes, name: string) {
    const [oldest] = this.#handshakes;
    if (this.#handshakes.size >= handshakesMax)
      oldest?.destroy(new NbdConnectionLost(`${name}: another one: too many clients are in the middle of a handshake`));
    this.#handshakes.add(client);
    const late = new NbdTimedOut(`${name}: no handshake within ${this.#bounds.handshakeMs / 1000} s`);
    const timer = setTimeout(() => client.destroy(late), this.#bounds.handshakeMs);
    try {
      return await new ServerHandshake(client, this.#terms(client, name), name).agree();
    } finally {
      clearTimeout(timer);
      this.#handshakes.delete(client);
    }
  }

  #terms(client: ClientBytes, name: string) {
    const { exports, defaultExport, tls } = this.#options;
    return {
      exports,
      find: (wanted: string) =>
        exports.find((each) => each.name === wanted) ??
        (wanted === '' ? exports.find((each) => each.name === defaultExport) : undefined),
      startTls: tls === null ? null : () => client.secure((plain) => acceptTls(plain, tls, name)),
    };
  }
}
