import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LossyFile, LossyFolder } from './lossy-disk.ts';
import { bytesOf, type Syscall } from './syscalls.ts';

/** Plays recorded file calls of one process on a lossy disk. Only what lies in `root` counts. */

interface OpenFile {
  readonly entry: LossyFile | LossyFolder;
  position: number;
}

export class Replay {
  readonly #root: string;
  readonly disk: LossyFolder;
  #open = new Map<number, OpenFile>();
  /** What a sync that has begun will make durable. */
  readonly #syncing = new Map<Syscall, () => void>();

  constructor(root: string, disk: LossyFolder) {
    this.#root = `${root}/`;
    this.disk = disk;
  }

  /** A sync covers what was done before it began. To be called in the order of `startedAt`. */
  begin(call: Syscall): void {
    if (call.name !== 'fsync' && call.name !== 'fdatasync') return;
    const { entry } = this.#open.get(Number(call.args[0])) ?? {};
    if (entry instanceof LossyFolder) {
      const entries = new Map(entry.entries);
      this.#syncing.set(call, () => entry.sync(entries));
    } else if (entry !== undefined) {
      const { changes } = entry;
      this.#syncing.set(call, () => entry.sync(changes));
    }
  }

  /** The call's effect. Throws for a call that this disk does not know. */
  end(call: Syscall): void {
    const { name, args, result } = call;
    const [a = '', b = '', c = '', d = ''] = args;
    switch (name) {
      case 'openat':
        this.#openAt(b, c, result);
        return;
      case 'close':
        this.#open.delete(Number(a));
        return;
      case 'write':
      case 'writev':
        this.#write(Number(a), null, bytesOf(b));
        return;
      case 'pwrite64':
        this.#write(Number(a), Number(d), bytesOf(b));
        return;
      case 'pwritev':
        this.#write(Number(a), Number(d), bytesOf(b));
        return;
      case 'ftruncate':
        this.#fileOf(Number(a))?.truncate(Number(b));
        return;
      case 'fsync':
      case 'fdatasync':
        this.#syncing.get(call)?.();
        this.#syncing.delete(call);
        return;
      case 'mkdir':
        this.#put(a, new LossyFolder());
        return;
      case 'link':
        this.#put(b, this.#find(a));
        return;
      case 'rename':
        this.#put(b, this.#find(a));
        this.#remove(a);
        return;
      case 'unlink':
        this.#remove(a);
        return;
      case 'fcntl':
        if (b.startsWith('F_DUPFD')) this.#duplicate(Number(a), result);
        return;
      case 'dup3':
        this.#duplicate(Number(a), result);
        return;
      default:
        if (args.some((arg) => this.#pathOf(arg) !== null)) throw new Error(`${name} is not understood`);
    }
  }

  #duplicate(from: number, to: number): void {
    const open = this.#open.get(from);
    if (open !== undefined) this.#open.set(to, open);
  }

  #openAt(path: string, flags: string, descriptor: number): void {
    const inside = this.#pathOf(path);
    this.#open.delete(descriptor);
    if (inside === null) return;
    let entry = this.#find(path);
    if (entry === null) {
      if (!flags.includes('O_CREAT')) throw new Error(`${inside} was opened and is not there`);
      entry = new LossyFile();
      this.#put(path, entry);
    }
    if (flags.includes('O_TRUNC') && entry instanceof LossyFile) entry.truncate(0);
    this.#open.set(descriptor, { entry, position: 0 });
  }

  #write(descriptor: number, offset: number | null, bytes: Uint8Array): void {
    const file = this.#fileOf(descriptor);
    const open = this.#open.get(descriptor);
    if (file === null || open === undefined) return;
    file.write(offset ?? open.position, bytes);
    if (offset === null) open.position += bytes.length;
  }

  #fileOf(descriptor: number): LossyFile | null {
    const entry = this.#open.get(descriptor)?.entry;
    return entry instanceof LossyFile ? entry : null;
  }

  /** Inside of the root; null for what lies elsewhere. */
  #pathOf(arg: string): string | null {
    if (!arg.startsWith('"')) return null;
    const path = bytesOf(arg).toString();
    return `${path}/`.startsWith(this.#root) ? path.slice(this.#root.length) : null;
  }

  #find(arg: string): LossyFile | LossyFolder | null {
    const path = this.#pathOf(arg);
    if (path === null) return null;
    let entry: LossyFile | LossyFolder | undefined = this.disk;
    for (const part of path.split('/').filter((name) => name !== '')) {
      entry = entry instanceof LossyFolder ? entry.entries.get(part) : undefined;
    }
    return entry ?? null;
  }

  #place(arg: string): { readonly folder: LossyFolder; readonly name: string } | null {
    const path = this.#pathOf(arg)?.replace(/\/$/, '');
    if (path === undefined) return null;
    const cut = path.lastIndexOf('/');
    const folder = this.#find(`"${hex(this.#root + path.slice(0, Math.max(0, cut)))}"`);
    if (!(folder instanceof LossyFolder)) throw new Error(`${path}: its folder is not there`);
    return { folder, name: path.slice(cut + 1) };
  }

  #put(arg: string, entry: LossyFile | LossyFolder | null): void {
    const place = this.#place(arg);
    if (place === null) return;
    if (entry === null) throw new Error(`${place.name} comes from outside`);
    place.folder.entries.set(place.name, entry);
  }

  #remove(arg: string): void {
    const place = this.#place(arg);
    place?.folder.entries.delete(place.name);
  }
}

function hex(text: string): string {
  return [...Buffer.from(text)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
}

/** A folder as it is now, everything in it durable. */
export function durableCopy(path: string): LossyFolder {
  const folder = new LossyFolder();
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const inside = join(path, entry.name);
    folder.entries.set(entry.name, entry.isDirectory() ? durableCopy(inside) : new LossyFile(readFileSync(inside)));
  }
  folder.sync(folder.entries);
  return folder;
}
