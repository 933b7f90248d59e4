import type { DiskReader, SnapshotDisk } from '../disk-reader.ts';
import type { VimSession } from '../vim25/vim-session.ts';
import type { TransportSettings } from '../vim25/vim-transport.ts';
import { DatastoreUnreadable } from './datastore-errors.ts';
import { beside, type DatastoreFile, folderPath, nameOf, parseDatastoreFile } from './datastore-file.ts';
import { readDescriptor } from './disk-descriptor.ts';
import { FolderClient } from './folder-client.ts';

/**
 * A disk read from its datastore over HTTPS, for sites without VDDK. While a snapshot is there, nobody writes to the flat file below it,
 * so it holds the disk of that moment; a disk that already stood on an older snapshot has no such file.
 */

const descriptorBytesMax = 64 * 1024;
const requestBytesMax = 4 * 1024 * 1024;

/** `datacenter`: the way to it from the root folder. Throws DatastoreUnreadable, saying why, and what the API's own errors name. */
export async function openDatastoreReader(
  session: VimSession,
  server: TransportSettings,
  disk: SnapshotDisk,
  datacenter: string,
  signal: AbortSignal,
): Promise<DiskReader> {
  using opening = new DisposableStack();
  const client = opening.use(new FolderClient(session, server));
  const file = parseDatastoreFile(disk.file);
  if (file === null) throw new DatastoreUnreadable(`${disk.file} is no file of a datastore`);
  const flat = await findFlat(client, file, disk, datacenter, signal);
  const held = opening.move();
  return {
    capacityBytes: disk.capacityBytes,
    async read(offset, into, readSignal) {
      const pieces = [];
      for (let at = 0; at < into.length; at += requestBytesMax)
        pieces.push({ at, bytes: Math.min(requestBytesMax, into.length - at) });
      const read = pieces.map(async ({ at, bytes }) => {
        const path = folderPath(flat, datacenter);
        const answer = await client.get(path, nameOf(flat), offset + at, bytes, readSignal);
        if (answer.bytes.length !== bytes)
          throw new DatastoreUnreadable(
            `${nameOf(flat)} ends ${bytes - answer.bytes.length} bytes before the disk does`,
          );
        into.set(answer.bytes, at);
      });
      await Promise.all(read);
    },
    async *extents() {
      yield { offset: 0, length: disk.capacityBytes, zero: false };
    },
    [Symbol.asyncDispose]: async () => held.dispose(),
  };
}

async function findFlat(
  client: FolderClient,
  file: DatastoreFile,
  disk: SnapshotDisk,
  datacenter: string,
  signal: AbortSignal,
): Promise<DatastoreFile> {
  const { bytes } = await client.get(folderPath(file, datacenter), nameOf(file), 0, descriptorBytesMax, signal);
  const found = readDescriptor(new TextDecoder().decode(bytes));
  if ('refusal' in found)
    throw new DatastoreUnreadable(`${disk.file} can't be read from its datastore: ${found.refusal}`);
  const flat = beside(file, found.file);
  const first = await client.get(folderPath(flat, datacenter), nameOf(flat), 0, 1, signal);
  if (first.fileBytes !== disk.capacityBytes)
    throw new DatastoreUnreadable(
      `${nameOf(flat)} has ${first.fileBytes} bytes, and the snapshot says that its disk has ${disk.capacityBytes}`,
    );
  return flat;
}
