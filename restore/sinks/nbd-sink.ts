import { open, rm } from 'node:fs/promises';
import { NbdDisk } from '../../hypervisors/nbd/nbd-disk.ts';
import { NbdRequestFailed } from '../../hypervisors/nbd/nbd-errors.ts';
import { parseNbdUri } from '../../hypervisors/nbd/nbd-uri.ts';
import { QemuToolFailed, runQemuImg, serveImage } from '../../hypervisors/nbd/qemu-nbd.ts';
import {
  type FileSinkOptions,
  findOutput,
  OutputExists,
  OutputUnusable,
  outputError,
  partialPathOf,
  takeName,
} from './raw-sink.ts';
import type { RestoreSink } from './sink.ts';

/** Restoring through NBD: onto an export, or into a qcow2 file that qemu-nbd serves meanwhile. */

export interface ExportSinkOptions {
  readonly uri: string;
  readonly capacityBytes: number;
  /** An export always holds something. */
  readonly force: boolean;
}

/** Onto a writable export of any server. Content that is in place already is not fetched. */
export async function openExportSink(options: ExportSinkOptions, signal: AbortSignal): Promise<RestoreSink> {
  const { uri, capacityBytes, force } = options;
  const address = parseNbdUri(uri);
  if (!force) throw new OutputExists(`${uri} is an export that holds something already: say --force to overwrite it`);
  await using opening = new AsyncDisposableStack();
  const disk = opening.use(await NbdDisk.open(address, {}, signal));
  requireFit(uri, disk, capacityBytes);
  const held = opening.move();
  return {
    ...diskSink(disk, uri),
    description: uri,
    startsZeroed: false,
    mayHoldContent: true,
    complete: (completeSignal) => disk.flush(completeSignal),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function requireFit(uri: string, disk: NbdDisk, capacityBytes: number): void {
  if (!disk.can.write) throw new OutputUnusable(`${uri} is read-only: export it writable`);
  if (disk.capacityBytes < capacityBytes)
    throw new OutputUnusable(`${uri} has ${disk.capacityBytes} bytes, fewer than the disk (${capacityBytes})`);
  if (capacityBytes % disk.blockBytes !== 0)
    throw new OutputUnusable(
      `${uri} is written in blocks of ${disk.blockBytes} bytes, and the disk of ${capacityBytes} bytes ends inside one`,
    );
}

/** Into a new qcow2 file, which takes its name when it is complete. */
export async function openQcow2Sink(options: FileSinkOptions, signal: AbortSignal): Promise<RestoreSink> {
  const { path, capacityBytes } = options;
  if ((await findOutput(options)) === 'device')
    throw new OutputUnusable(`${path} is a block device: restore raw onto it, or into a qcow2 file`);
  const partial = partialPathOf(options);
  const isNew = !(await isSound(partial, signal));
  if (isNew) await runQemuImg(['create', '-q', '-f', 'qcow2', '--', partial, String(capacityBytes)], signal);
  await using opening = new AsyncDisposableStack();
  const served = opening.use(
    await serveImage({ path: partial, format: 'qcow2', writable: true, contexts: [] }, signal),
  );
  const held = opening.move();
  return {
    ...diskSink(served.disk, partial),
    description: path,
    startsZeroed: true,
    mayHoldContent: !isNew,
    async complete(completeSignal) {
      try {
        await served.disk.flush(completeSignal);
        // The server writes the last of the image's own tables when it ends.
        await held.disposeAsync();
        await using file = await open(partial, 'r');
        await file.sync();
        await takeName(partial, path);
      } catch (error) {
        throw sinkError(error, partial);
      }
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function diskSink(disk: NbdDisk, name: string): Pick<RestoreSink, 'read' | 'write' | 'direct'> {
  const guarded = async (work: Promise<void>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      throw sinkError(error, name);
    }
  };
  return {
    read: (offset, into, signal) => guarded(disk.read(offset, into, signal)),
    write: (offset, bytes, signal) => guarded(disk.write(offset, bytes, signal)),
    direct: null,
  };
}

function sinkError(error: unknown, name: string): unknown {
  if (!(error instanceof NbdRequestFailed)) return outputError(error, name);
  const hint = error.errno === 'ENOSPC' ? ': free some space, and run the same restore again to go on' : '';
  return new OutputUnusable(`${name} can't be written: ${error.message}${hint}`, { cause: error });
}

/**
 * Whether an unfinished image can be gone on with. After a power cut its tables may be torn: what is in place now could be
 * overwritten by what comes next, so such an image is made anew.
 */
async function isSound(partial: string, signal: AbortSignal): Promise<boolean> {
  try {
    await runQemuImg(['check', '-q', '-f', 'qcow2', '--', partial], signal);
    return true;
  } catch (error) {
    if (!(error instanceof QemuToolFailed)) throw error;
  }
  await rm(partial, { force: true });
  return false;
}
