import { Coverage } from './coverage.ts';
import type { NbdRequestFailed } from './nbd-errors.ts';
import { command, commandName, type Request } from './nbd-wire.ts';

/** Bytes of a block status: pairs of 32-bit length and flags, checked. */
export type StatusReply = ReadonlyMap<string, DataView>;

/** One request from the moment it is asked for until the server has answered it whole. */
export class PendingRequest {
  readonly request: Request;
  /** What follows the header of a write. */
  readonly payload: Uint8Array | null;
  /** For a read: what of it has arrived. */
  readonly coverage: Coverage | null;
  readonly statuses = new Map<string, DataView>();
  readonly answered: Promise<StatusReply>;
  /** Null once nobody may write there any more: what still arrives is dropped. */
  into: Uint8Array | null;
  /** Set by the first error that the server reports for it. */
  failure: NbdRequestFailed | null = null;
  chunks = 0;
  /** How an abort of a write waits until the kernel has taken its payload. */
  sent: Promise<unknown> | null = null;
  #resolve: (statuses: StatusReply) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(request: Request, into: Uint8Array | null, payload: Uint8Array | null) {
    this.request = request;
    this.into = into;
    this.payload = payload;
    this.coverage = request.command === command.read ? new Coverage(request.length) : null;
    this.answered = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** The server's answer is whole. */
  finish(): void {
    this.into = null;
    if (this.failure === null) this.#resolve(this.statuses);
    else this.#reject(this.failure);
  }

  /** The caller hears it now; without effect once it has heard something. */
  fail(error: unknown): void {
    this.into = null;
    this.#reject(error);
  }

  describe(): string {
    const { request } = this;
    const name = commandName[request.command] ?? `command ${request.command}`;
    return request.command === command.flush ? name : `${name} of ${request.length} bytes at ${request.offset}`;
  }
}
