import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { formatNbdUri } from '../../hypervisors/nbd/nbd-uri.ts';
import { NbdListenFailed, type NbdListenPlace } from '../../hypervisors/nbd/server/listen.ts';
import type { NbdServerTls } from '../../hypervisors/nbd/server/server-tls.ts';
import { ReplicaNotFound } from '../../replica/chain.ts';
import { isDamage } from '../../replica/damage.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { type OpenPoint, OpenReplica } from '../../restore/open-point.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { PointServer, type ServeOptions } from '../../restore/serve/serve-point.ts';
import { findPoint } from '../choose-point.ts';
import { findMachine } from '../find-machine.ts';
import { describeFreshness, knownHead } from '../freshness.ts';
import { rangesInFlightMax, servedCacheBytes, workersOf } from '../memory-budget.ts';
import { formatBytes } from '../quantities.ts';
import { holdPoint } from '../retention/hold-point.ts';
import { openSession } from '../session.ts';
import { chooseDisks } from './choose-disks.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit serve`: a recovery point as disks that other programs read, until somebody ends it. */

interface ServeFlags {
  readonly point?: string;
  readonly disk?: string;
  readonly socket?: string;
  readonly listen?: Extract<NbdListenPlace, { kind: 'tcp' }>;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsClientCa?: string;
  readonly cacheMib?: number;
  readonly expectHead?: string;
  readonly salvage?: boolean;
}

const mebibyte = 2 ** 20;
const cacheMibMin = 8;
/** A store that is away fails every read; one line now and then is enough. */
const storeTroubleEveryMs = 10_000;

export function register(program: Command, run: RunCommand): void {
  program
    .command('serve')
    .description('serve the disks of a recovery point over NBD, read-only; blocks are fetched when they are read')
    .argument('<machine>', 'name or id')
    .option('--point <point>', 'number, a time, or latest (default: latest)')
    .option('--disk <label>', 'serve this disk only')
    .addOption(
      new Option('--socket <path>', 'unix socket to listen on (default: one in a new private folder)').conflicts(
        'listen',
      ),
    )
    .addOption(
      new Option('--listen <host:port>', 'TCP address to listen on; without TLS this host only').argParser(hostAndPort),
    )
    .option('--tls-cert <file>', 'certificate of the server (PEM): nothing is served without TLS')
    .option('--tls-key <file>', 'its key (PEM)')
    .option('--tls-client-ca <file>', 'only clients with a certificate of this authority (PEM) get in')
    .addOption(
      new Option('--cache-mib <number>', 'memory for opened blocks (default: a quarter of limits.memoryMiB)').argParser(
        cacheMib,
      ),
    )
    .option('--salvage', 'read around damage to the chain: take what is still whole')
    .option('--expect-head <seq:digest>', 'the head that you noted: refuse a bucket that shows an older one')
    .action((machine: string, flags: ServeFlags, command: Command) =>
      run(command, (context) => serve(machine, flags, context)),
    );
}

async function serve(machine: string, flags: ServeFlags, context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  const tls = readTls(flags);
  const salvage = flags.salvage === true;
  await using session = await openSession(context, { salvage });
  const machineId = await findMachine(session, machine, signal);
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal, { salvage });
  const freshness = await describeFreshness(replica, knownHead(session, machineId, flags.expectHead), signal);
  const point = await replica.openPoint(await findPoint(replica, flags.point, session.config, signal), signal);
  await using _held = salvage ? null : await holdPoint(replica, point.point, context);
  const disks = chooseDisks(point, flags.disk);
  if (disks.length === 0) throw new ReplicaNotFound(`point ${point.point} has no disks`);
  using reader = new SegmentReader(session.repo, machineId, replica.keys);
  await using workers = new RestoreWorkers(workersOf(session.config));
  await using place = await openPlace(flags);
  const tools = {
    ...{ reader, workers, rangesInFlightMax: rangesInFlightMax(session.config) },
    cacheBytes: flags.cacheMib === undefined ? servedCacheBytes(session.config) : flags.cacheMib * mebibyte,
  };
  const options = {
    ...{ disks, place: place.place, tls, events: eventsTo(context) },
    description: describePoint(point),
    defaultDisk: disks.length === 1 ? (disks[0]?.label ?? null) : null,
  };
  await using server = await PointServer.open(tools, options);
  announce(server, options, { point, freshness }, context);
  const started = performance.now();
  await aborted(signal);
  return answer(server, point, performance.now() - started);
}

/** TLS files are read before anything is asked of the store. Throws NbdListenFailed. */
function readTls({ tlsCert, tlsKey, tlsClientCa }: ServeFlags): NbdServerTls | null {
  if (tlsCert === undefined && tlsKey === undefined && tlsClientCa === undefined) return null;
  if (tlsCert === undefined || tlsKey === undefined)
    throw new NbdListenFailed('TLS needs a certificate and its key: give --tls-cert and --tls-key');
  return {
    certificate: readPem(tlsCert),
    key: readPem(tlsKey),
    clientCa: tlsClientCa === undefined ? null : readPem(tlsClientCa),
  };
}

function readPem(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    throw new NbdListenFailed(`${file}: can't be read (${code})`, { cause });
  }
}

interface OpenPlace extends AsyncDisposable {
  readonly place: NbdListenPlace;
}

async function openPlace({ socket, listen }: ServeFlags): Promise<OpenPlace> {
  const nothing = async () => undefined;
  if (listen !== undefined) return { place: listen, [Symbol.asyncDispose]: nothing };
  if (socket !== undefined) return { place: { kind: 'unix', path: resolve(socket) }, [Symbol.asyncDispose]: nothing };
  const folder = await mkdtemp(join(tmpdir(), 'failkit-serve-'));
  return {
    place: { kind: 'unix', path: join(folder, 'nbd') },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

function hostAndPort(text: string): Extract<NbdListenPlace, { kind: 'tcp' }> {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) throw new InvalidArgumentError('give it as 127.0.0.1:10809 or [::1]:10809');
  return { kind: 'tcp', host: match[1] ?? match[2] ?? '', port };
}

function cacheMib(text: string): number {
  const mib = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  const max = Math.floor(totalmem() / mebibyte);
  if (mib >= cacheMibMin && mib <= max) return mib;
  throw new InvalidArgumentError(`give a whole number of MiB, from ${cacheMibMin} to the ${max} that this host has`);
}

function describePoint({ point, manifest }: OpenPoint): string {
  return `${manifest.machineName} as of ${new Date(manifest.snapshotTimeMs).toISOString()} (point ${point})`;
}

/** People hear at once what can't be read; the log, where there is one, hears of clients too. */
function eventsTo({ output, config, logger }: CommandContext): ServeOptions['events'] {
  const log = config().logging.file === null ? null : logger();
  let nextTroubleAt = 0;
  return {
    connected: (client) => log?.info({ client }, 'an NBD client reads'),
    disconnected: (client, error) =>
      log?.info({ client, ...(error instanceof Error && { error: error.message }) }, 'an NBD client left'),
    damaged: (label, { first, count }, error) => {
      const line = `${label}: blocks ${first} to ${first + count - 1} are damaged: ${error.message}; find out more with failkit verify`;
      output.note(line);
      log?.error({ label, firstBlock: first, blocks: count, error: error.message }, 'damaged blocks were read');
    },
    requestFailed: (client, request, error) => {
      const message = error instanceof Error ? error.message : String(error);
      log?.warn({ client, request, error: message }, 'a request of an NBD client failed');
      const now = performance.now();
      if ((error instanceof Error && isDamage(error.cause)) || now < nextTroubleAt) return;
      nextTroubleAt = now + storeTroubleEveryMs;
      output.note(`a ${request} failed: ${message}`);
    },
  };
}

function announce(
  server: PointServer,
  { disks, defaultDisk, tls }: Pick<ServeOptions, 'disks' | 'defaultDisk' | 'tls'>,
  { point, freshness }: { readonly point: OpenPoint; readonly freshness: string },
  { output }: CommandContext,
): void {
  const { place } = server.server;
  const uriOf = ({ label }: DiskState) => {
    const exportName = label === defaultDisk ? '' : label;
    return formatNbdUri({ transport: place, exportName, tls: tls !== null });
  };
  const exports = disks.map((disk) => ({ label: disk.label, capacityBytes: disk.capacityBytes, uri: uriOf(disk) }));
  const { manifest } = point;
  const snapshotTime = new Date(manifest.snapshotTimeMs).toISOString();
  const { green, yellow, dim, bold } = output.colours;
  output.announce(
    {
      ...{ machine: manifest.machineName, point: point.point, snapshotTime, consistency: manifest.consistency },
      ...{ freshness, exports, excluded: manifest.excluded },
    },
    [
      `${green('ok')} serving ${describePoint(point)}, read-only, until Ctrl-C`,
      ...exports.map(({ label, capacityBytes, uri }) => `   ${label}  ${formatBytes(capacityBytes)}  ${bold(uri)}`),
      ...manifest.excluded.map(({ label, reason }) => yellow(`   ${label} is not in this point: ${reason}`)),
      dim(`   ${freshness}`),
    ],
  );
}

function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve: end } = Promise.withResolvers<void>();
  if (signal.aborted) end();
  signal.addEventListener('abort', () => end(), { once: true });
  // Nothing else may be under way: the process must not end for want of work.
  const alive = setInterval(() => undefined, 2 ** 30);
  return promise.finally(() => clearInterval(alive));
}

function answer(server: PointServer, point: OpenPoint, durationMs: number): CommandAnswer {
  const { readBytes, fetchedBytes, ranges } = server.served;
  return {
    document: { machine: point.manifest.machineName, point: point.point, durationMs, readBytes, fetchedBytes, ranges },
    lines: [
      `served ${point.manifest.machineName}: ${formatBytes(readBytes)} read by clients, ${formatBytes(fetchedBytes)} fetched`,
    ],
  };
}
