import { stringBytesMax } from '../nbd-wire.ts';

/** What the data of an option holds is not what its length says, or not text. The option is refused, and the handshake goes on. */
export class OptionMalformed extends Error {}

/** Reads the data of one option to its very end. */
export class OptionData {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  uint16(): number {
    return this.#take(2).readUInt16BE();
  }

  uint32(): number {
    return this.#take(4).readUInt32BE();
  }

  /** Its length in 32 bits, then UTF-8. */
  string(): string {
    const length = this.uint32();
    if (length > stringBytesMax) throw new OptionMalformed(`a string of ${length} bytes, at most ${stringBytesMax}`);
    return this.#take(length).toString();
  }

  end(): void {
    if (this.left > 0) throw new OptionMalformed(`${this.left} bytes too many`);
  }

  #take(length: number): Buffer {
    if (length > this.left) throw new OptionMalformed(`it ends in the middle`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}
