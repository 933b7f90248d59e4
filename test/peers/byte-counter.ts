/** A TCP proxy in front of a real server that counts what passes, both ways, and can take its time for it. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export interface ByteCounter extends AsyncDisposable {
  readonly endpoint: string;
  /** From the client to the server. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** For what comes from now on; to be called while nothing is on its way. */
  setDelay(delayMs: number): void;
}

/** On its way at one time, for each direction of each connection: 200 Mbit/s over 80 ms need 2 MB. */
const underWayBytesMax = 16 * 2 ** 20;

/** `delayMs`: what a byte takes from end to end, one way. */
export async function startByteCounter(port: number, delayMs = 0): Promise<ByteCounter> {
  const seen = { sentBytes: 0, receivedBytes: 0 };
  const delay = { ms: delayMs };
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port, host: '127.0.0.1', noDelay: true });
    for (const socket of [client, upstream]) open.add(socket);
    pass(client, upstream, delay, (bytes) => {
      seen.sentBytes += bytes;
    });
    pass(upstream, client, delay, (bytes) => {
      seen.receivedBytes += bytes;
    });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        open.delete(socket);
        other.destroy();
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    get sentBytes() {
      return seen.sentBytes;
    },
    get receivedBytes() {
      return seen.receivedBytes;
    },
    setDelay: (ms) => {
      delay.ms = ms;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

function pass(from: Socket, to: Socket, delay: { readonly ms: number }, count: (bytes: number) => void): void {
  let underWay = 0;
  const deliver = (chunk: Buffer): void => {
    to.write(chunk, () => {
      count(chunk.length);
      underWay -= chunk.length;
      if (underWay < underWayBytesMax) from.resume();
    });
  };
  from.on('data', (chunk: Buffer) => {
    underWay += chunk.length;
    if (underWay >= underWayBytesMax) from.pause();
    if (delay.ms === 0) deliver(chunk);
    else setTimeout(deliver, delay.ms, chunk);
  });
  from.on('end', () => setTimeout(() => to.end(), delay.ms));
}
