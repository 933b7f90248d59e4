import { setMaxListeners } from 'node:events';
import type { NbdListenPlace } from '../../hypervisors/nbd/server/listen.ts';
import { NbdServer, type NbdServerEvents } from '../../hypervisors/nbd/server/nbd-server.ts';
import type { NbdServerTls } from '../../hypervisors/nbd/server/server-tls.ts';
import type { DiskState } from '../../replica/manifest.ts';
import type { SegmentReader } from '../../replica/segment-reader.ts';
import type { RestoreWorkers } from '../restore-workers.ts';
import { BlockCache } from './block-cache.ts';
import { KeptPages } from './kept-pages.ts';
import { RecordFetcher } from './record-fetcher.ts';
import { type BlockRange, recordRange, ServedDisk } from './served-disk.ts';

/** A recovery point as read-only NBD exports: blocks are fetched, opened and checked when somebody reads them. */

/** Opened pages of the block maps, a few KiB for 4 MiB of disk each. */
const pagesBytesMax = 16 * 2 ** 20;
/** Payload on its way to clients. */
const replyBytesMax = 32 * 2 ** 20;
const replyBytesOfOneMax = 16 * 2 ** 20;
/** Told once each; a disk has more places to be damaged at than anybody wants to read. */
const damageToldMax = 1000;

export interface ServeTools {
  readonly reader: SegmentReader;
  readonly workers: RestoreWorkers;
  readonly rangesInFlightMax: number;
  /** For opened blocks. */
  readonly cacheBytes: number;
}

export interface ServeOptions {
  /** One export each, named by its label. */
  readonly disks: readonly DiskState[];
  /** What lists of exports say beside each label. */
  readonly description: string;
  readonly place: NbdListenPlace;
  readonly tls: NbdServerTls | null;
  /** The label of the disk that clients get who name none. */
  readonly defaultDisk: string | null;
  readonly events: NbdServerEvents & {
    /** Blocks that nobody can have. Once for each place, however often it is read. */
    damaged?(label: string, blocks: BlockRange, error: Error): void;
  };
}

export interface ServedBytes {
  /** What clients were given. */
  readonly readBytes: number;
  /** Of segments, without the map. */
  readonly fetchedBytes: number;
  readonly ranges: number;
}

/** Dispose it before the reader and the workers. */
export class PointServer implements AsyncDisposable {
  readonly server: NbdServer;
  readonly cache: BlockCache;
  readonly #disks: readonly ServedDisk[];
  readonly #fetcher: RecordFetcher;
  readonly #stop: AbortController;

  private constructor(
    server: NbdServer,
    parts: {
      readonly cache: BlockCache;
      readonly disks: readonly ServedDisk[];
      readonly fetcher: RecordFetcher;
      readonly stop: AbortController;
    },
  ) {
    this.server = server;
    this.cache = parts.cache;
    this.#disks = parts.disks;
    this.#fetcher = parts.fetcher;
    this.#stop = parts.stop;
  }

  /** Clients may connect once it resolves. Throws NbdListenFailed. */
  static async open(tools: ServeTools, options: ServeOptions): Promise<PointServer> {
    const { disks, events } = options;
    const stop = new AbortController();
    // Every range that is under way listens.
    setMaxListeners(0, stop.signal);
    const cache = new BlockCache(tools.cacheBytes, Math.min(...disks.map(({ blockSize }) => blockSize)));
    const damaged = damageOnce(events);
    const fetcher = new RecordFetcher(
      {
        ...tools,
        keep: (disk, { firstBlock, bytes }) =>
          cache.put(disks.indexOf(disk), (firstBlock * disk.blockSize) / cache.unitBytes, bytes),
        damaged: (disk, record, error) => damaged(disk, recordRange(record), error),
      },
      stop.signal,
    );
    const pages = new KeptPages(tools.reader, pagesBytesMax);
    const shared = { pages, fetcher, cache, damaged, signal: stop.signal };
    const served = disks.map((disk, index) => new ServedDisk(disk, index, options.description, shared));
    const server = await NbdServer.listen({
      place: options.place,
      exports: served,
      defaultExport: options.defaultDisk,
      tls: options.tls,
      bounds: { bytesMax: replyBytesMax, connectionBytesMax: replyBytesOfOneMax },
      events,
    });
    return new PointServer(server, { cache, disks: served, fetcher, stop });
  }

  get served(): ServedBytes {
    const { fetchedBytes, ranges } = this.#fetcher;
    return { readBytes: this.#disks.reduce((sum, { readBytes }) => sum + readBytes, 0), fetchedBytes, ranges };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Clients are gone before what is fetched for them is: nobody is told of a failure that is none.
    const closing = this.server[Symbol.asyncDispose]();
    this.#stop.abort(new Error('the service ends'));
    await closing;
    this.cache[Symbol.dispose]();
  }
}

function damageOnce({ damaged }: ServeOptions['events']) {
  const told = new Set<string>();
  return ({ label }: DiskState, blocks: BlockRange, error: Error): void => {
    const place = `${label} ${blocks.first}`;
    if (told.has(place) || told.size === damageToldMax) return;
    told.add(place);
    damaged?.(label, blocks, error);
  };
}
