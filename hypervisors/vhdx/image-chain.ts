import { PageCache } from './file-pages.ts';
import { ImageCorrupt, ImageUnsupported, ParentMismatch, ParentMissing } from './image-errors.ts';
import type { ImageLayer, ParentReference } from './image-layer.ts';
import { ascii } from './little-endian.ts';
import { parentPlaces } from './parent-places.ts';
import { type OpenFile, type RandomAccessFile, readBytes } from './random-access-file.ts';
import { openVhdLayer } from './vhd-layer.ts';
import { openVhdxLayer } from './vhdx-layer.ts';

/** An image, and all that it was laid over, down to the one that stands for itself. */

/** Hyper-V keeps at most 50 snapshots of a machine. */
const layersMax = 64;

export interface ChainOptions {
  readonly openFile: OpenFile;
  readonly onWindows: boolean;
}

/** The image first. Whoever opens it disposes it. */
export interface ImageChain extends AsyncDisposable {
  readonly layers: readonly [ImageLayer, ...ImageLayer[]];
}

/** Throws what image-errors.ts names, or what `openFile` does. Null: there is no such file. */
export async function openChain(path: string, options: ChainOptions, signal: AbortSignal): Promise<ImageChain | null> {
  await using opening = new AsyncDisposableStack();
  const cache = new PageCache();
  const file = await options.openFile(path, signal);
  if (file === null) return null;
  const top = await openLayer(file, cache, opening, signal);
  const layers: [ImageLayer, ...ImageLayer[]] = [top];
  for (let child = top; child.parent !== null; ) {
    if (layers.length === layersMax) throw new ImageUnsupported(`${path} lies over more than ${layersMax - 1} images`);
    const parent = await openParent(child, child.parent, cache, options, opening, signal);
    if (layers.some(({ file: { identity } }) => identity === parent.file.identity))
      throw new ImageCorrupt(`${child.file.path} lies over ${parent.file.path}, which lies over it: a circle`);
    layers.push(parent);
    child = parent;
  }
  const held = opening.move();
  return { layers, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

async function openLayer(
  file: RandomAccessFile,
  cache: PageCache,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<ImageLayer> {
  opening.use(file);
  const isVhdx = file.sizeBytes >= 8 && ascii(await readBytes(file, 0, 8, signal), 0, 8) === 'vhdxfile';
  return isVhdx ? await openVhdxLayer(file, cache, signal) : await openVhdLayer(file, cache, signal);
}

/** The first place where there is a file that the child may lie over. */
async function openParent(
  child: ImageLayer,
  reference: ParentReference,
  cache: PageCache,
  { openFile, onWindows }: ChainOptions,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<ImageLayer> {
  const places = parentPlaces(child.file.path, reference.paths, onWindows);
  let mismatch: ParentMismatch | null = null;
  for (const place of places) {
    const file = await openFile(place, signal);
    if (file === null) continue;
    const parent = await openLayer(file, cache, opening, signal);
    if (![...parent.identifiers].some((each) => reference.identifiers.has(each)))
      mismatch ??= new ParentMismatch(
        `${place} is not what ${child.file.path} was laid over: it was written to or exchanged since (${[...parent.identifiers].join()}, wanted ${[...reference.identifiers].join(' or ')})`,
      );
    else if (parent.sectorBytes !== child.sectorBytes)
      throw new ImageCorrupt(`${place} and ${child.file.path}, which lies over it, have sectors of different sizes`);
    else return parent;
  }
  if (mismatch !== null) throw mismatch;
  throw new ParentMissing(
    `${child.file.path} lies over another image, which is not at ${places.join(' nor at ') || 'any place that it names'}: put it there`,
  );
}
