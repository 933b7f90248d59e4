import { createServer, type Server, type Socket } from 'node:net';

/** A hub among the machines of one drill, inside this process: no frame can leave it. */

const lengthBytes = 4;
const frameBytesMax = 128 * 1024;
/** A machine that does not take its frames loses them, as on a wire. */
const queuedBytesMax = 4 * 1024 * 1024;

export class IsolatedNetwork implements AsyncDisposable {
  readonly socketPath: string;
  readonly #server: Server;
  readonly #machines = new Set<Socket>();

  private constructor(socketPath: string) {
    this.socketPath = socketPath;
    this.#server = createServer((machine) => {
      this.#machines.add(machine);
      const frames = new FrameReader((frame) => this.#send(frame, machine));
      machine.on('data', (bytes: Buffer) => {
        if (!frames.take(bytes)) machine.destroy();
      });
      machine.on('error', () => machine.destroy());
      machine.on('close', () => this.#machines.delete(machine));
    });
  }

  static async open(socketPath: string): Promise<IsolatedNetwork> {
    const network = new IsolatedNetwork(socketPath);
    await new Promise<void>((resolve, reject) => {
      network.#server.once('error', reject);
      network.#server.listen(socketPath, resolve);
    });
    return network;
  }

  #send(frame: Buffer, from: Socket): void {
    for (const machine of this.#machines)
      if (machine !== from && machine.writableLength < queuedBytesMax) machine.write(frame);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.#machines) machine.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

/** QEMU's stream of frames: each has its length in front of it, 4 bytes, big-endian. */
export class FrameReader {
  readonly #onFrame: (frame: Buffer) => void;
  #bytes: Buffer = Buffer.alloc(0);

  /** `onFrame` gets each with its length still in front. */
  constructor(onFrame: (frame: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** False when this is no such stream. */
  take(bytes: Buffer): boolean {
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    while (this.#bytes.length >= lengthBytes) {
      const length = this.#bytes.readUInt32BE(0);
      if (length > frameBytesMax) return false;
      if (this.#bytes.length < lengthBytes + length) return true;
      this.#onFrame(this.#bytes.subarray(0, lengthBytes + length));
      this.#bytes = this.#bytes.subarray(lengthBytes + length);
    }
    return true;
  }
}
