import type { EpochKeys, KeyRing, KeySource } from '../../replica/key-ring.ts';
import { keyRecordName } from '../../replica/names.ts';

/** Keys for verifying: an epoch that can't be opened is asked for once, and its failure is told from that of a segment. */
export class CheckedKeys implements KeySource {
  readonly #ring: KeyRing;
  readonly #machineId: Uint8Array;
  readonly #epochs = new Map<number, Promise<EpochKeys>>();
  readonly #failed = new Map<unknown, string>();

  constructor(ring: KeyRing, machineId: Uint8Array) {
    this.#ring = ring;
    this.#machineId = machineId;
  }

  mayHave(epoch: number): boolean {
    return this.#ring.mayHave(epoch);
  }

  async epoch(epoch: number, signal: AbortSignal): Promise<EpochKeys> {
    const known = this.#epochs.get(epoch);
    if (known !== undefined) return await known;
    const opening = this.#open(epoch, signal);
    this.#epochs.set(epoch, opening);
    return await opening;
  }

  /** The key record that an error is about; null where it is about something else. */
  objectOf(error: unknown): string | null {
    return this.#failed.get(error) ?? null;
  }

  async #open(epoch: number, signal: AbortSignal): Promise<EpochKeys> {
    try {
      return await this.#ring.epoch(epoch, signal);
    } catch (error) {
      this.#failed.set(error, keyRecordName(this.#machineId, epoch, 0));
      throw error;
    }
  }
}
