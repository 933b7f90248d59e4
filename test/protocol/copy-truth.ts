import { parseEntry } from '../../replica/chain-entry.ts';
import { chainPrefix, segmentKey, segmentName, segmentsPrefix } from '../../replica/names.ts';
import type { MemoryWatch } from '../fakes/memory-target.ts';
import { parseManifest, type Slots, sha256Hex, type Truth, Violation } from './truth.ts';

/** What must hold of a copy, whatever its copiers and its sweeper do: what the source retains of it can be restored from it. */
export class CopyTruth implements MemoryWatch {
  readonly #source: Truth;
  readonly #repositoryId: Uint8Array;
  readonly #machineId: Uint8Array;
  readonly #found: (violation: Violation) => void;
  readonly #segments = new Map<string, string>();
  readonly #points = new Map<number, Slots>();

  constructor(source: Truth, repositoryId: Uint8Array, machineId: Uint8Array, found: (violation: Violation) => void) {
    this.#source = source;
    this.#repositoryId = repositoryId;
    this.#machineId = machineId;
    this.#found = found;
  }

  put(name: string, bytes: Uint8Array): void {
    if (name.startsWith(segmentsPrefix(this.#machineId))) this.#segments.set(name, sha256Hex(bytes));
    if (!name.startsWith(chainPrefix(this.#machineId))) return;
    const seq = Number.MAX_SAFE_INTEGER - Number(name.slice(-16));
    const { body } = parseEntry(this.#repositoryId, this.#machineId, seq, bytes);
    if (body.type === 'prune') for (const point of body.points) this.#points.delete(point);
    if (body.type !== 'publish') return;
    this.#points.set(seq, parseManifest(body.sealedManifest).slots);
    // What was pruned since is on its way out: the entry that says so comes later.
    if (this.#source.points.has(seq)) this.#check(seq, 'when its entry came');
  }

  deleted(name: string): void {
    this.#segments.delete(name);
    for (const seq of this.#points.keys()) if (this.#source.points.has(seq)) this.#check(seq, `without ${name}`);
  }

  /** After a copy that ended well: it is the source as it was at entry `head`. */
  checkWhole(head: number): void {
    for (const seq of this.#source.pointsAt(head).keys())
      if (this.#points.has(seq)) this.#check(seq, `in a copy up to entry ${head}`);
  }

  #check(seq: number, when: string): void {
    for (const unit of this.#points.get(seq)?.values() ?? []) {
      if (this.#segments.get(segmentName(this.#machineId, unit)) === unit.sha256) continue;
      this.#found(new Violation('copy lost a segment', `${segmentKey(unit)} of point ${seq}, ${when}`));
    }
  }
}
