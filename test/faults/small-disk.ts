import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A file system in memory that is full when a test wants it to be. */

const pieceBytes = 64 * 1024;

export function whyNoSmallDisk(): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-mount-'));
  try {
    using _disk = new SmallDisk(join(folder, 'disk'), 2 ** 20);
    return null;
  } catch {
    return 'needs the right to mount a tmpfs';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export class SmallDisk implements Disposable {
  readonly folder: string;

  constructor(folder: string, bytes: number) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
    mount(['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', folder]);
  }

  /** Fills it up to this many free bytes. */
  leave(freeBytes: number): void {
    this.makeRoom();
    const filler = openSync(this.#filler, 'w');
    const { bavail, bsize } = statfsSync(this.folder);
    for (let left = bavail * bsize - freeBytes; left > 0; left -= pieceBytes) {
      writeSync(filler, new Uint8Array(Math.min(left, pieceBytes)));
    }
    closeSync(filler);
  }

  makeRoom(): void {
    rmSync(this.#filler, { force: true });
  }

  get #filler(): string {
    return join(this.folder, 'filler');
  }

  [Symbol.dispose](): void {
    spawnSync('umount', ['-l', this.folder]);
    rmdirSync(this.folder);
  }
}

function mount(args: readonly string[]): void {
  const { status, stderr } = spawnSync('mount', args);
  if (status !== 0) throw new Error(`mount ${args.join(' ')}: ${stderr}`);
}
