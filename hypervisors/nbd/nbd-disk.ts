import { NbdConnection, type NbdTimeouts, nbdTimeouts } from './nbd-connection.ts';
import { NbdConnectionLost, NbdUnsupported } from './nbd-errors.ts';
import type { NbdTls } from './nbd-socket.ts';
import { describeNbdAddress, type NbdAddress } from './nbd-uri.ts';

export const baseAllocation = 'base:allocation';
/** `base:allocation`: the extent reads as zero. */
export const readsAsZero = 2;
/** `qemu:dirty-bitmap:…`: the extent was written. */
export const isDirty = 1;

export interface NbdDiskOptions {
  /** Meta contexts that the server must grant, as `qemu:dirty-bitmap:NAME`. */
  readonly contexts?: readonly string[];
  /** Those that are used where the server has them. */
  readonly contextsIfOffered?: readonly string[];
  readonly tls?: NbdTls;
  readonly timeouts?: NbdTimeouts;
  /** At most so many; one where the server can't keep several coherent. */
  readonly connectionsMax?: number;
}

/** A run of the disk with one meaning of the context; neighbours differ in their flags. */
export interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

/** One is as fast as two wherever it was measured (docs/decisions/0042). */
const connectionsByDefault = 1;
/** Smaller requests than the protocol allows keep the server's threads busy and its answers flowing. */
const requestBytesMax = 1024 * 1024;
/** Of one question for block status: its length field holds 32 bits. */
const statusBytesMax = 2 * 1024 * 1024 * 1024;
const noTls: NbdTls = { ca: null, client: null };

/** An export as a disk: any offset, any length, over one connection or several. Whoever opens it disposes it. */
export class NbdDisk implements AsyncDisposable {
  readonly #where: string;
  readonly #connections: readonly NbdConnection[];
  readonly #first: NbdConnection;

  private constructor(where: string, first: NbdConnection, others: readonly NbdConnection[]) {
    this.#where = where;
    this.#first = first;
    this.#connections = [first, ...others];
  }

  /** Throws what nbd-errors.ts names; NbdUnsupported for a context that the server does not grant. */
  static async open(address: NbdAddress, options: NbdDiskOptions, signal: AbortSignal): Promise<NbdDisk> {
    await using opening = new AsyncDisposableStack();
    const where = describeNbdAddress(address);
    const { contexts = [], contextsIfOffered = [], tls = noTls, timeouts = nbdTimeouts } = options;
    const open = async () =>
      opening.use(await NbdConnection.open(address, { contexts, contextsIfOffered, tls }, timeouts, signal));
    const first = await open();
    const { capacityBytes, blocks, can } = first.export;
    if (capacityBytes % blocks.min !== 0)
      throw new NbdUnsupported(
        `${where}: the last ${capacityBytes % blocks.min} bytes can't be read, for the server wants whole blocks of ` +
          `${blocks.min} and the export has ${capacityBytes} bytes: enlarge the image, or serve it with smaller blocks`,
      );
    const others: NbdConnection[] = [];
    const wanted = can.multipleConnections ? (options.connectionsMax ?? connectionsByDefault) : 1;
    while (others.length + 1 < wanted) others.push(await open());
    checkAlike(where, first, others);
    opening.move();
    return new NbdDisk(where, first, others);
  }

  get capacityBytes(): number {
    return this.#first.export.capacityBytes;
  }

  /** Writes consist of whole blocks of so many bytes. */
  get blockBytes(): number {
    return this.#first.export.blocks.min;
  }

  /** What `extents` can be asked for. */
  get contexts(): readonly string[] {
    return [...this.#first.export.contexts.values()];
  }

  get can(): NbdConnection['export']['can'] {
    return this.#first.export.can;
  }

  /** Fills `into` exactly, or throws; never short. Safe to call many times in parallel. */
  async read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#checkRange('read', offset, into.length);
    const { min } = this.#first.export.blocks;
    const end = offset + into.length;
    const [bodyStart, bodyEnd] = [roundUp(offset, min), end - (end % min)];
    if (bodyStart > bodyEnd) return this.#readEdge(offset, into, signal);
    const head = into.subarray(0, bodyStart - offset);
    const tail = into.subarray(bodyEnd - offset);
    await settled([
      ...(head.length > 0 ? [this.#readEdge(offset, head, signal)] : []),
      ...this.#pieces(bodyStart, into.subarray(bodyStart - offset, bodyEnd - offset)).map((piece) =>
        this.#idlest().read(piece.offset, piece.bytes, signal),
      ),
      ...(tail.length > 0 ? [this.#readEdge(bodyEnd, tail, signal)] : []),
    ]);
  }

  /** The range must consist of whole blocks of the export. Durable only after `flush`, or with `fua`. */
  async write(
    offset: number,
    bytes: Uint8Array,
    signal: AbortSignal,
    options: { readonly fua: boolean } = { fua: false },
  ): Promise<void> {
    this.#checkBlocks('write', offset, bytes.length);
    await settled(
      this.#pieces(offset, bytes).map((piece) => this.#idlest().write(piece.offset, piece.bytes, options, signal)),
    );
  }

  /** The range must consist of whole blocks. `mayTrim`: the server may make a hole, which still reads as zero. */
  async writeZeroes(
    offset: number,
    length: number,
    signal: AbortSignal,
    options: { readonly mayTrim: boolean; readonly fua: boolean } = { mayTrim: true, fua: false },
  ): Promise<void> {
    this.#checkBlocks('write of zeroes', offset, length);
    for (const piece of this.#ranges(offset, length))
      await this.#idlest().writeZeroes(piece.offset, piece.length, options, signal);
  }

  /** A hint: what reads back there is not defined. The range must consist of whole blocks. */
  async trim(offset: number, length: number, signal: AbortSignal): Promise<void> {
    this.#checkBlocks('trim', offset, length);
    for (const piece of this.#ranges(offset, length)) await this.#idlest().trim(piece.offset, piece.length, signal);
  }

  /** Everything written before is durable: with several connections, too, for those are coherent. */
  flush(signal: AbortSignal): Promise<void> {
    return this.#first.flush(signal);
  }

  /** Ascending, without gaps, together exactly the range. */
  async *extents(context: string, offset: number, length: number, signal: AbortSignal): AsyncGenerator<NbdExtent> {
    this.#checkRange('question for extents', offset, length);
    if (!this.contexts.includes(context))
      throw new NbdUnsupported(`${this.#where}: the context ${context} was not asked for when the disk was opened`);
    const end = offset + length;
    let open: NbdExtent = { offset, length: 0, flags: 0 };
    while (open.offset + open.length < end) {
      const at = open.offset + open.length;
      for (const extent of await this.#askExtents(context, at, end, signal)) {
        if (open.length === 0 || extent.flags === open.flags)
          open = { offset: open.offset, length: open.length + extent.length, flags: extent.flags };
        else {
          yield open;
          open = extent;
        }
      }
    }
    if (open.length > 0) yield open;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection[Symbol.asyncDispose]()));
  }

  /** Those of one reply, cut to the range. */
  async #askExtents(context: string, at: number, end: number, signal: AbortSignal): Promise<Iterable<NbdExtent>> {
    const { min } = this.#first.export.blocks;
    const from = at - (at % min);
    const length = Math.min(statusBytesMax, roundUp(end, min) - from);
    const extents = (await this.#first.blockStatus(from, length, signal)).get(context);
    // The parser has checked that each granted context is in the reply.
    if (extents === undefined) throw new NbdUnsupported(`${this.#where}: no answer for the context ${context}`);
    return extentsBetween(extents, from, at, end);
  }

  async #readEdge(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    const { min } = this.#first.export.blocks;
    const start = offset - (offset % min);
    const blocks = Buffer.allocUnsafe(roundUp(offset + into.length, min) - start);
    await settled(this.#pieces(start, blocks).map((piece) => this.#idlest().read(piece.offset, piece.bytes, signal)));
    into.set(blocks.subarray(offset - start, offset - start + into.length));
  }

  #pieces(offset: number, bytes: Uint8Array): { offset: number; bytes: Uint8Array }[] {
    const { min, max } = this.#first.export.blocks;
    const most = Math.max(min, Math.min(max, requestBytesMax));
    const pieces: { offset: number; bytes: Uint8Array }[] = [];
    for (let at = 0; at < bytes.length; at += most)
      pieces.push({ offset: offset + at, bytes: bytes.subarray(at, Math.min(at + most, bytes.length)) });
    return pieces;
  }

  /** Requests without payload have no limit but their 32 bits. */
  *#ranges(offset: number, length: number): Generator<{ offset: number; length: number }> {
    const end = offset + length;
    for (let at = offset; at < end; at += statusBytesMax)
      yield { offset: at, length: Math.min(statusBytesMax, end - at) };
  }

  #idlest(): NbdConnection {
    return this.#connections.reduce((idlest, other) => (other.load < idlest.load ? other : idlest));
  }

  #checkRange(what: string, offset: number, length: number): void {
    const fits = Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= this.capacityBytes;
    if (!fits)
      throw new RangeError(`${what} of ${length} bytes at ${offset} leaves the disk of ${this.capacityBytes} bytes`);
  }

  #checkBlocks(what: string, offset: number, length: number): void {
    this.#checkRange(what, offset, length);
    const { min } = this.#first.export.blocks;
    if (offset % min !== 0 || length % min !== 0)
      throw new RangeError(`${what} of ${length} bytes at ${offset} is not in whole blocks of ${min} bytes`);
  }
}

function* extentsBetween(extents: DataView, from: number, start: number, end: number): Generator<NbdExtent> {
  let offset = from;
  for (let at = 0; at < extents.byteLength; at += 8) {
    const next = offset + extents.getUint32(at);
    const [cutStart, cutEnd] = [Math.max(offset, start), Math.min(next, end)];
    if (cutStart < cutEnd) yield { offset: cutStart, length: cutEnd - cutStart, flags: extents.getUint32(at + 4) };
    offset = next;
  }
}

/** Like Promise.all, but all of them are over when it settles: nobody still writes into the caller's memory. */
async function settled(parts: readonly Promise<void>[]): Promise<void> {
  const only = parts[0];
  if (only !== undefined && parts.length === 1) return only;
  for (const part of await Promise.allSettled(parts)) if (part.status === 'rejected') throw part.reason;
}

/** An export that was exchanged between two connections would mix two disks. */
function checkAlike(where: string, first: NbdConnection, others: readonly NbdConnection[]): void {
  const differs = others.some(
    ({ export: other }) =>
      other.capacityBytes !== first.export.capacityBytes || other.blocks.min !== first.export.blocks.min,
  );
  if (differs) throw new NbdConnectionLost(`${where}: the export changed while it was opened: try again`);
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
