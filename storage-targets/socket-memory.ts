import type { Agent, ClientRequestArgs } from 'node:http';
import type { Readable } from 'node:stream';

/**
 * Node takes new memory for every 64 KiB that a socket receives, which is more than half of what a GET costs. Here a
 * socket reads into the same memory over and over, for as long as whoever takes its bytes is done with them at once.
 */

const memoryBytes = 64 * 1024;

/** What one socket reads into. */
export class SocketMemory {
  #bytes = Buffer.allocUnsafeSlow(memoryBytes);
  #takers = 0;
  #taken = 0;

  /** From now on until it is disposed, somebody takes bytes as they come. */
  startTaking(): Disposable {
    this.#takers += 1;
    const stop = (): void => {
      this.#takers -= 1;
    };
    return { [Symbol.dispose]: stop };
  }

  /** The chunk was used up, and is not looked at again. */
  noteTaken(chunk: Uint8Array): void {
    this.#taken += chunk.length;
  }

  /** Whether the chunk lies in what the socket reads into: Node's HTTP parser copies, at present. */
  holds({ buffer }: Uint8Array): boolean {
    return buffer === this.#bytes.buffer;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Hands `count` bytes on. Unless every one of them is taken before `emit` returns, somebody may hold them: they are never read over. */
  handOn(count: number, emit: (bytes: Uint8Array) => void): void {
    const received = this.#bytes.subarray(0, count);
    if (this.#takers === 0) {
      emit(Buffer.from(received));
      return;
    }
    this.#taken = 0;
    emit(received);
    if (this.#taken !== count) this.#bytes = Buffer.allocUnsafeSlow(memoryBytes);
  }
}

const memories = new WeakMap<object, SocketMemory>();

/** Of the connection that the answer comes from; null where Node reads it in its own way. */
export function memoryOf(answer: Readable): SocketMemory | null {
  return 'socket' in answer && isObject(answer.socket) ? (memories.get(answer.socket) ?? null) : null;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** Gives every connection of the agent a memory of its own. */
export function withSocketMemory<Any extends Agent>(agent: Any): Any {
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options: ClientRequestArgs, callback) => {
    const memory = new SocketMemory();
    const onread = {
      buffer: () => memory.bytes,
      callback: (count: number) => {
        memory.handOn(count, (bytes) => socket?.emit('data', bytes));
        return true;
      },
    };
    const withMemory = { ...options, onread };
    const socket = connect(withMemory, callback);
    if (isObject(socket)) memories.set(socket, memory);
    return socket;
  };
  return agent;
}
