import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { FilePiece } from '../../hypervisors/hypervisor.ts';
import { ImageCorrupt, ImageUnsupported } from '../../hypervisors/vhdx/image-errors.ts';
import { openLocalFile } from '../../hypervisors/vhdx/local-file.ts';
import { VhdxWriter } from '../../hypervisors/vhdx/vhdx-writer.ts';
import {
  type FileSinkOptions,
  findOutput,
  OutputUnusable,
  outputError,
  partialPathOf,
  readFully,
  takeName,
  writeFully,
} from './raw-sink.ts';
import type { RestoreSink } from './sink.ts';

/** Into a new dynamic VHDX file, which takes its name when it is complete. No tool of QEMU or Windows is needed. */
export async function openVhdxSink(options: FileSinkOptions, signal: AbortSignal): Promise<RestoreSink> {
  const { path, capacityBytes } = options;
  if ((await findOutput(options)) === 'device')
    throw new OutputUnusable(`${path} is a block device: restore raw onto it, or into a vhdx file`);
  const partial = partialPathOf(options);
  try {
    await using opening = new AsyncDisposableStack();
    const file = opening.use(await open(partial, constants.O_RDWR | constants.O_CREAT, 0o600));
    const begun = (await file.stat()).size > 0 ? await goOn(file, partial, capacityBytes, signal) : null;
    const writer = begun ?? (await VhdxWriter.create(file, capacityBytes));
    opening.move();
    return vhdxSink(file, writer, { path, partial, isNew: begun === null });
  } catch (error) {
    throw outputError(error, path);
  }
}

/** After a power cut its table may name what never reached the disk: such an image is made anew. */
async function goOn(
  file: FileHandle,
  partial: string,
  capacityBytes: number,
  signal: AbortSignal,
): Promise<VhdxWriter | null> {
  await using read = await openLocalFile(partial, signal);
  if (read === null) return null;
  try {
    return await VhdxWriter.reopen(file, read, capacityBytes, signal);
  } catch (error) {
    if (error instanceof ImageCorrupt || error instanceof ImageUnsupported) return null;
    throw error;
  }
}

function vhdxSink(
  file: FileHandle,
  writer: VhdxWriter,
  { path, partial, isNew }: { readonly path: string; readonly partial: string; readonly isNew: boolean },
): RestoreSink {
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw outputError(error, partial);
    }
  };
  const place = (offset: number, length: number): Promise<readonly FilePiece[]> =>
    guarded(() => writer.place(file.fd, offset, length));
  return {
    description: path,
    startsZeroed: true,
    mayHoldContent: !isNew,
    async write(offset, bytes, signal) {
      for (const { at, length, offset: inFile } of await place(offset, bytes.length))
        await guarded(() => writeFully(file, inFile, bytes.subarray(at - offset, at - offset + length), signal));
    },
    async read(offset, into, signal) {
      into.fill(0);
      for (const { at, length, offset: inFile } of writer.written(file.fd, offset, into.length))
        await guarded(() => readFully(file, inFile, into.subarray(at - offset, at - offset + length), partial, signal));
    },
    direct: { place, refusal: (error) => outputError(error, partial), noteWritten: () => undefined },
    complete: () =>
      guarded(async () => {
        await file.sync();
        await takeName(partial, path);
      }),
    [Symbol.asyncDispose]: () => file.close(),
  };
}
