import { ImageCorrupt, ImageUnsupported } from './image-errors.ts';
import { guidAt, viewOf, zeroGuid } from './little-endian.ts';

/** By what a differencing image finds its parent, and knows it again (MS-VHDX 2.6.2.6). */

const vhdxLocatorType = 'b04aefb7-d19e-4a81-b789-25b8e9445913';
const guidText = /^\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?$/i;

export interface ParentLocator {
  /** Data write identifiers that the parent may have. */
  readonly linkages: ReadonlySet<string>;
  /** As Windows writes paths, and in the order in which they are to be tried. */
  readonly relativePath: string | null;
  readonly absolutePaths: readonly string[];
}

export function parseParentLocator(path: string, bytes: Uint8Array): ParentLocator {
  const entries = parseEntries(path, bytes);
  const linkages = ['parent_linkage', 'parent_linkage2']
    .map((key) => guidText.exec(entries.get(key) ?? '')?.[1]?.toLowerCase() ?? zeroGuid)
    // Windows writes a second linkage of zeros where the specification wants none: it is nobody's.
    .filter((guid) => guid !== zeroGuid);
  if (linkages.length === 0) throw new ImageCorrupt(`${path}: it does not say which parent it was laid over`);
  const absolute = ['volume_path', 'absolute_win32_path'].map((key) => entries.get(key) ?? null);
  return {
    linkages: new Set(linkages),
    relativePath: entries.get('relative_path') ?? null,
    absolutePaths: absolute.filter((each) => each !== null),
  };
}

function parseEntries(path: string, bytes: Uint8Array): ReadonlyMap<string, string> {
  const broken = () => new ImageCorrupt(`${path}: its parent locator is broken`);
  if (bytes.length < 20) throw broken();
  const type = guidAt(bytes, 0);
  if (type !== vhdxLocatorType)
    throw new ImageUnsupported(`${path} names its parent in a way that is not known here (${type})`);
  const view = viewOf(bytes);
  const count = view.getUint16(18, true);
  if (20 + 12 * count > bytes.length) throw broken();
  const text = (offset: number, length: number): string => {
    if (offset < 20 || length === 0 || length % 2 !== 0 || offset + length > bytes.length) throw broken();
    return new TextDecoder('utf-16le').decode(bytes.subarray(offset, offset + length));
  };
  const entries = new Map<string, string>();
  for (let i = 0; i < count; i++) {
    const at = 20 + 12 * i;
    const key = text(view.getUint32(at, true), view.getUint16(at + 8, true));
    if (entries.has(key)) throw broken();
    entries.set(key, text(view.getUint32(at + 4, true), view.getUint16(at + 10, true)));
  }
  return entries;
}
