import { readFile } from 'node:fs/promises';
import { SourceNotFound } from '../errors.ts';
import { baseAllocation, NbdDisk } from '../nbd/nbd-disk.ts';
import type { NbdTls } from '../nbd/nbd-socket.ts';
import { nbdBlockSource } from '../nbd/nbd-source.ts';
import { parseNbdUri } from '../nbd/nbd-uri.ts';
import { serveImage } from '../nbd/qemu-nbd.ts';
import { readImageInfo } from './image-info.ts';
import type { ExportDisk, ImageFormat, PathDisk } from './image-machine.ts';
import { identityOf, inspect, type OpenDisk } from './open-raw-disk.ts';
import { startBitmap } from './qcow2-tracking.ts';
import { watchFiles } from './watch-files.ts';

/** An image file in a format of its own. A machine that runs holds QEMU's lock on it, and qemu-nbd says so. */
export async function openImage(
  machine: string,
  disk: PathDisk,
  format: ImageFormat,
  signal: AbortSignal,
): Promise<OpenDisk> {
  const stats = await inspect(machine, disk);
  const { path, label } = disk;
  await using opening = new AsyncDisposableStack();
  const info = await readImageInfo(path, format, signal);
  const tracking = disk.tracking === 'bitmap' ? await startBitmap(path, info, signal) : null;
  // After the server has gone: an image that is open can't be changed. The run's own signal may be over by then.
  if (tracking !== null) opening.defer(() => tracking.tidy(new AbortController().signal));
  const bitmaps = tracking?.usable ?? [];
  const contexts = [baseAllocation, ...bitmaps.map((name) => `qemu:dirty-bitmap:${name}`)];
  const watch = await watchFiles(info.files, signal);
  const served = opening.use(await serveImage({ path, format, writable: false, contexts, bitmaps }, signal));
  const held = opening.move();
  return {
    source: nbdBlockSource({
      label,
      disk: served.disk,
      referencePoint: tracking?.referencePoint ?? null,
      bitmapSince: tracking?.bitmapSince ?? null,
    }),
    watch,
    place: path,
    identity: identityOf(stats),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Nothing tells whether an export holds still: that is for whoever exports it to see to. */
export async function openExport(disk: ExportDisk, signal: AbortSignal): Promise<OpenDisk> {
  const address = parseNbdUri(disk.nbd);
  const tls = address.tls ? { tls: await readTls(disk) } : {};
  const open = await NbdDisk.open(address, { contextsIfOffered: [baseAllocation], ...tls }, signal);
  return {
    source: nbdBlockSource({ label: disk.label, disk: open, referencePoint: null, bitmapSince: null }),
    watch: { liveBecause: null, whatChanged: async () => null },
    place: disk.nbd,
    identity: `export ${disk.nbd}`,
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  };
}

async function readTls({ label, tls }: ExportDisk): Promise<NbdTls> {
  const read = async (file: string): Promise<string> =>
    readFile(file, 'utf8').catch((cause: unknown) => {
      throw new SourceNotFound(`disk ${label}: ${file} can't be read: check the path and its permissions`, { cause });
    });
  const { caFile = null, certificateFile = null, keyFile = null } = tls ?? {};
  return {
    ca: caFile === null ? null : await read(caFile),
    client:
      certificateFile === null || keyFile === null
        ? null
        : { certificate: await read(certificateFile), key: await read(keyFile) },
  };
}
