import { ChangeTrackingLost, SourceNotFound } from '../errors.ts';
import type { BlockSource, Extent, ReferencePoint } from '../hypervisor.ts';
import { capacityOf, diskExtents } from '../vhdx/chain-reader.ts';
import { readsOf } from '../vhdx/chain-source.ts';
import { type ImageChain, openChain } from '../vhdx/image-chain.ts';
import { openLocalFile } from '../vhdx/local-file.ts';
import type { ImageFormat, PathDisk } from './image-machine.ts';
import { inspect, type OpenDisk } from './open-raw-disk.ts';
import { watchFiles } from './watch-files.ts';

/** VHDX and VHD, with all that they were laid over: read here, without QEMU. */

/** Of the formats as QEMU calls them. */
export function isChained(format: ImageFormat): boolean {
  return format === 'vhdx' || format === 'vpc';
}

export async function openChainedDisk(machine: string, disk: PathDisk, signal: AbortSignal): Promise<OpenDisk> {
  await using opening = new AsyncDisposableStack();
  const chain = opening.use(await openLocalChain(machine, disk, signal));
  const watch = await watchFiles(
    chain.layers.map(({ file }) => file.path),
    signal,
  );
  const held = opening.move();
  return {
    source: blockSourceOf(machine, disk.label, chain),
    watch,
    place: disk.path,
    identity: chain.layers[0].file.identity,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

export async function measureChained(machine: string, disk: PathDisk, signal: AbortSignal): Promise<number> {
  await using chain = await openLocalChain(machine, disk, signal);
  return capacityOf(chain);
}

async function openLocalChain(machine: string, disk: PathDisk, signal: AbortSignal): Promise<ImageChain> {
  const stats = await inspect(machine, disk);
  const unusable = (why: string) => new SourceNotFound(`disk ${disk.label} of machine ${machine}: ${disk.path} ${why}`);
  if (!stats.isFile()) throw unusable('is a block device: leave out its format');
  const options = { openFile: openLocalFile, onWindows: process.platform === 'win32' };
  const chain = await openChain(disk.path, options, signal);
  if (chain === null) throw unusable('does not exist: check the path');
  return chain;
}

function blockSourceOf(machine: string, label: string, chain: ImageChain): BlockSource {
  return {
    ...readsOf(chain),
    label,
    referencePoint: null,
    changedExtents: (since, signal) => allExtents(machine, label, chain, since, signal),
  };
}

async function* allExtents(
  machine: string,
  label: string,
  chain: ImageChain,
  since: ReferencePoint,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  if (since !== null)
    throw new ChangeTrackingLost(`disk ${label} of machine ${machine} is an image, which tracks no changes`);
  yield* diskExtents(chain, signal);
}
