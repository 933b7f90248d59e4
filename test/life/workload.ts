import { ModelMachine } from '../fakes/model-machine.ts';
import { filled } from '../law/guest.ts';
import { Random } from '../random.ts';

/** What the guests of the simulated fleet write: fixed by the seed, hour by hour, in whole blocks. */

const blockBytes = 64 * 1024;
/** Of a block, what does not compress: a ratio of four. */
const randomBytes = 16 * 1024;
/** Cut at another place for each block and version. */
const poolBytes = 2 ** 20;

export interface Habits {
  readonly kind: string;
  readonly blocks: number;
  /** Writes in an hour of the working day, and in another hour. */
  readonly busyWrites: number;
  readonly idleWrites: number;
  /** A write covers up to so many blocks. */
  readonly runBlocksMax: number;
  /** So much of the writes goes to the first tenth of the disk. */
  readonly hotShare: number;
  /** Rewritten each night at two. */
  readonly nightlyBlocks: number;
}

export const habits = {
  database: {
    kind: 'database',
    blocks: 160,
    busyWrites: 8,
    idleWrites: 4,
    runBlocksMax: 2,
    hotShare: 0.8,
    nightlyBlocks: 0,
  },
  files: { kind: 'files', blocks: 192, busyWrites: 3, idleWrites: 0, runBlocksMax: 4, hotShare: 0.1, nightlyBlocks: 4 },
  web: { kind: 'web', blocks: 96, busyWrites: 3, idleWrites: 2, runBlocksMax: 1, hotShare: 0.9, nightlyBlocks: 8 },
  busy: { kind: 'busy', blocks: 320, busyWrites: 24, idleWrites: 8, runBlocksMax: 3, hotShare: 0.6, nightlyBlocks: 32 },
} as const satisfies Record<string, Habits>;

/** A machine of one disk whose content is known by the version of each block. */
export class LivingMachine {
  readonly machine: ModelMachine;
  readonly habits: Habits;
  /** Version of each block; 0: never written, and zero. */
  readonly versions: Uint32Array;
  readonly #random: Random;
  readonly #pool: Uint8Array;

  constructor(name: string, own: Habits, seed: number) {
    this.machine = new ModelMachine(name);
    this.machine.addDisk('system', own.blocks * blockBytes);
    this.habits = own;
    this.versions = new Uint32Array(own.blocks);
    this.#random = new Random(seed);
    this.#pool = filled(poolBytes, seed, true);
    // A tenth stays empty.
    for (let block = 0; block < own.blocks * 0.9; block++) this.#write(block);
  }

  liveOneHour(hourOfDay: number): void {
    const { blocks, busyWrites, idleWrites, runBlocksMax, hotShare, nightlyBlocks } = this.habits;
    const writes = hourOfDay >= 8 && hourOfDay < 18 ? busyWrites : idleWrites;
    for (let i = 0; i < writes; i++) {
      const within = this.#random.chance(hotShare) ? Math.ceil(blocks / 10) : blocks;
      const first = this.#random.below(within);
      const end = Math.min(blocks, first + 1 + this.#random.below(runBlocksMax));
      for (let block = first; block < end; block++) this.#write(block);
    }
    const nightly = hourOfDay === 2 ? nightlyBlocks : 0;
    const from = this.#random.below(blocks - nightly);
    for (let block = from; block < from + nightly; block++) this.#write(block);
  }

  /** Whether a restored disk holds these versions. */
  isContent(restored: Uint8Array, versions: Uint32Array): boolean {
    const expected = new Uint8Array(blockBytes);
    return versions.every((version, block) => {
      this.#fill(expected, block, version);
      return Buffer.compare(restored.subarray(block * blockBytes, (block + 1) * blockBytes), expected) === 0;
    });
  }

  #write(block: number): void {
    const version = (this.versions[block] ?? 0) + 1;
    this.versions[block] = version;
    const bytes = new Uint8Array(blockBytes);
    this.#fill(bytes, block, version);
    this.machine.disks.get('system')?.write(block * blockBytes, bytes);
  }

  #fill(into: Uint8Array, block: number, version: number): void {
    into.fill(version === 0 ? 0 : 1 + (version % 250));
    if (version === 0) return;
    const from = (Math.imul(block, 40_503) + Math.imul(version, 65_599)) >>> 0;
    into.set(this.#pool.subarray(from % (poolBytes - randomBytes), (from % (poolBytes - randomBytes)) + randomBytes));
  }
}
