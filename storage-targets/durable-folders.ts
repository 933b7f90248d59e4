import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf } from './filesystem-errors.ts';
import { folderOf } from './object-name.ts';

const rememberedFoldersMax = 10_000;

/** Makes the folders of object names so that they outlast a power loss, and remembers which ones it has made sure of. */
export class DurableFolders {
  readonly #root: string;
  readonly #made = new Map<string, Promise<void>>();

  constructor(root: string) {
    this.#root = root;
  }

  /** `folder` ends in a slash; the empty string is the root, which the operator made. */
  make(folder: string): Promise<void> {
    if (folder === '') return Promise.resolve();
    const known = this.#made.get(folder);
    if (known) return known;
    if (this.#made.size >= rememberedFoldersMax) this.#made.clear();
    const making = this.#make(folder);
    this.#made.set(folder, making);
    making.catch(() => this.#made.delete(folder));
    return making;
  }

  /** After a folder vanished under us, nothing remembered is certain any more. */
  forget(): void {
    this.#made.clear();
  }

  /**
   * The parent is synced even when the folder was there already: whoever made it, perhaps a process that was killed
   * right afterwards, need not have done so.
   */
  async #make(folder: string): Promise<void> {
    const parent = folderOf(folder.slice(0, -1));
    await this.make(parent);
    await mkdir(join(this.#root, folder)).catch((error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error;
    });
    await syncFolder(join(this.#root, parent));
  }
}

/** Makes the names in a folder durable. Windows cannot open folders; there the file system journals names by itself. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  await using handle = await open(path, 'r');
  await handle.sync();
}
