import { posix, win32 } from 'node:path';
import type { ParentPath } from './image-layer.ts';

/**
 * Where a child's parent may lie. A path that is relative to the child's folder is followed anywhere; one that is absolute on the host
 * that wrote it only there. Elsewhere a file of that name beside the child is looked at: whether it is the parent, its identifier tells.
 */
export function parentPlaces(childPath: string, paths: readonly ParentPath[], onWindows: boolean): readonly string[] {
  const { dirname, join } = onWindows ? win32 : posix;
  const folder = dirname(childPath);
  const places = paths.flatMap(({ relative, path }) => {
    if (path.includes('\0')) return [];
    if (relative) return [join(folder, onWindows ? path : path.replaceAll('\\', '/'))];
    const beside = join(folder, win32.basename(path));
    return onWindows ? [path, beside] : [beside];
  });
  return [...new Set(places)];
}
