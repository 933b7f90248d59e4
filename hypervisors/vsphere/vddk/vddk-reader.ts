import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Extent } from '../../hypervisor.ts';
import { baseAllocation, NbdDisk, readsAsZero } from '../../nbd/nbd-disk.ts';
import { NbdConnectionLost, NbdRequestFailed, NbdTimedOut, NbdUnreachable } from '../../nbd/nbd-errors.ts';
import type { NbdAddress } from '../../nbd/nbd-uri.ts';
import type { DiskReader, SnapshotDisk, VsphereLogin } from '../disk-reader.ts';
import { pause } from '../pause.ts';
import { explainFailure } from './explain-failure.ts';
import { NbdkitProcess } from './nbdkit-process.ts';
import { makeReaderFolder } from './reader-folder.ts';
import { VddkFailed, VddkHostUnreachable } from './vddk-errors.ts';
import type { VddkSettings } from './vddk-settings.ts';

/** nbdkit itself; what VDDK takes to open a disk is inside the handshake. */
const startTimeoutMs = 20_000;
const pollMs = 20;
/** VDDK logs in, asks for a host and waits for it: minutes, where the vCenter is busy. */
const timeouts = { handshakeMs: 180_000, responseMs: 180_000 };
/** Of one read, and for the whole disk: more is no accident. */
const attemptsMax = 4;
const restartsMax = 50;
const restartDelayMs = 300;
/** Buffers of 1 MiB instead of 64 KiB: https://knowledge.broadcom.com/external/article/313937 */
const ourConfig = 'vixDiskLib.nfcAio.Session.BufSizeIn64KB=16\nvixDiskLib.nfcAio.Session.BufCount=4\n';

/** Opens one disk of a snapshot. Throws what vddk-errors.ts names. */
export async function openVddkReader(
  settings: VddkSettings,
  login: VsphereLogin,
  disk: SnapshotDisk,
  signal: AbortSignal,
): Promise<DiskReader> {
  await using opening = new AsyncDisposableStack();
  const open = (now: AbortSignal): Promise<OpenDisk> => openOnce(settings, login, disk, now);
  const reader = opening.use(new VddkReader(open, disk.capacityBytes, signal));
  await reader.opened(signal);
  opening.move();
  return reader;
}

/** A process that serves, and our connection to it. */
interface OpenDisk extends AsyncDisposable {
  readonly nbd: NbdDisk;
  /** What becomes of an error of its connection. */
  explain(error: unknown): unknown;
}

/** Survives its nbdkit, and a host that failed a read: VDDK was seen to crash, and what was read so far is good. */
class VddkReader implements DiskReader {
  readonly capacityBytes: number;
  readonly #open: (signal: AbortSignal) => Promise<OpenDisk>;
  #current: Promise<OpenDisk>;
  #restarts = 0;
  #disposed = false;

  constructor(open: (signal: AbortSignal) => Promise<OpenDisk>, capacityBytes: number, signal: AbortSignal) {
    this.#open = open;
    this.capacityBytes = capacityBytes;
    this.#current = heard(open(signal));
  }

  opened(signal: AbortSignal): Promise<void> {
    return this.#trying(async () => undefined, signal);
  }

  read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    return this.#trying(({ nbd }) => nbd.read(offset, into, signal), signal);
  }

  /** Asked for in whole: it is a list of extents, and short. */
  async *extents(signal: AbortSignal): AsyncGenerator<Extent> {
    yield* await this.#trying(({ nbd }) => allExtents(nbd, signal), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    const current = await this.#current.catch(() => null);
    await current?.[Symbol.asyncDispose]();
  }

  async #trying<T>(ask: (open: OpenDisk) => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const asked = this.#current;
      let open: OpenDisk | null = null;
      try {
        open = await asked;
        return await ask(open);
      } catch (caught) {
        signal.throwIfAborted();
        const error = open === null ? caught : open.explain(caught);
        const mayPass = error instanceof VddkFailed || error instanceof VddkHostUnreachable;
        if (!mayPass || attempt === attemptsMax || !this.#restart(asked, open, signal)) throw error;
      }
    }
  }

  /** Many reads fail with one process, and one of them starts the next. False: that will not help any more. */
  #restart(asked: Promise<OpenDisk>, failed: OpenDisk | null, signal: AbortSignal): boolean {
    if (this.#disposed) return false;
    if (this.#current !== asked) return true;
    if (this.#restarts === restartsMax) return false;
    this.#restarts += 1;
    this.#current = heard(this.#replace(failed, signal));
    return true;
  }

  async #replace(failed: OpenDisk | null, signal: AbortSignal): Promise<OpenDisk> {
    await failed?.[Symbol.asyncDispose]();
    await pause(restartDelayMs, signal);
    return await this.#open(signal);
  }
}

/** Whoever waits for it hears how it ends; it is no failure that nobody heard of. */
function heard<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

/** What a new nbdkit may cure. */
function isNbdFailure(error: unknown): boolean {
  return error instanceof NbdRequestFailed || error instanceof NbdConnectionLost || error instanceof NbdTimedOut;
}

async function allExtents(nbd: NbdDisk, signal: AbortSignal): Promise<readonly Extent[]> {
  const whole = { offset: 0, length: nbd.capacityBytes, zero: false };
  if (!nbd.contexts.includes(baseAllocation)) return [whole];
  const extents: Extent[] = [];
  try {
    for await (const { offset, length, flags } of nbd.extents(baseAllocation, 0, nbd.capacityBytes, signal))
      extents.push({ offset, length, zero: (flags & readsAsZero) !== 0 });
    return extents;
  } catch (error) {
    // Some stores and versions can't tell what was ever written: then all of it is read.
    if (error instanceof NbdRequestFailed) return [whole];
    throw error;
  }
}

async function openOnce(
  settings: VddkSettings,
  login: VsphereLogin,
  disk: SnapshotDisk,
  signal: AbortSignal,
): Promise<OpenDisk> {
  await using opening = new AsyncDisposableStack();
  const folder = await makeReaderFolder();
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const [socket, ours] = [join(folder, 'socket'), join(folder, 'vddk.conf')];
  if (settings.configFile === null) await writeFile(ours, ourConfig, { mode: 0o600 });
  const configFile = settings.configFile ?? ours;
  const process = opening.use(new NbdkitProcess({ settings, login, disk, folder, socket, configFile }));
  const explain = (error: unknown): unknown => {
    const what = process.end === null ? 'a read failed' : `nbdkit is gone (${process.end})`;
    return isNbdFailure(error) ? explainFailure(process.messages, login, disk, what, error) : error;
  };
  const nbd = opening.use(await connectWhenReady(process, socket, login, disk, signal));
  if (nbd.capacityBytes !== disk.capacityBytes)
    throw new VddkFailed(
      `${disk.file}: VDDK says that it has ${nbd.capacityBytes} bytes, and the snapshot says ${disk.capacityBytes}`,
    );
  const held = opening.move();
  return { nbd, explain, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

/** It makes its socket a moment after it starts, and opens the disk when somebody connects. */
async function connectWhenReady(
  process: NbdkitProcess,
  socket: string,
  login: VsphereLogin,
  disk: SnapshotDisk,
  signal: AbortSignal,
): Promise<NbdDisk> {
  const address: NbdAddress = {
    transport: { kind: 'unix', path: socket },
    exportName: '',
    tls: false,
    serverName: 'localhost',
  };
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      return await NbdDisk.open(address, { contextsIfOffered: [baseAllocation], timeouts }, signal);
    } catch (error) {
      signal.throwIfAborted();
      const isStarting = error instanceof NbdUnreachable && process.end === null && performance.now() < deadline;
      if (!isStarting) throw explainFailure(process.messages, login, disk, why(process, error), error);
    }
    await pause(pollMs, signal);
  }
}

function why({ end }: NbdkitProcess, error: unknown): string {
  if (end !== null) return `nbdkit is gone (${end})`;
  return error instanceof NbdUnreachable ? `nbdkit did not start within ${startTimeoutMs / 1000} s` : 'it did not open';
}
