import { createHash } from 'node:crypto';
import type { EntryBody } from '../../replica/chain-entry.ts';
import type { EntryEffect } from '../../replica/chain-state.ts';
import type {
  AdoptedTenure,
  Birth,
  Control,
  Death,
  RetainedPoint,
  SegmentLife,
  Summary,
} from '../../replica/control.ts';
import { filled, machineId } from './specimens.ts';

/** Makes up legal entries and remembers everything that ever happened, in lists: slow, plain, and nothing is ever forgotten. */

interface Segment {
  readonly birth: Birth;
  readonly bornAt: number;
  /** Units that died, by entry. */
  readonly deaths: { readonly seq: number; readonly units: number }[];
}

export interface NextEntry {
  readonly entry: EntryEffect;
  readonly control: Control;
  readonly digest: Uint8Array;
}

export class ChainModel {
  readonly #segments: Segment[] = [];
  readonly #published: RetainedPoint[] = [];
  readonly #pruned = new Set<number>();
  readonly #epochs: { epoch: number; keyRecordDigest: Uint8Array }[] = [];
  #seq = 0;
  #tenure = 0;
  #owner = 0;
  #lastNumber = 0;
  #watermark = 0;
  #hasPublished = false;
  #adopted: AdoptedTenure[] = [];
  #lock = { generation: 0, untilMs: 0 };
  #random: number;

  constructor(seed: number) {
    this.#random = seed;
  }

  /** A legal next entry; `choice` decides which. */
  next(choice: number): NextEntry {
    this.#random = (this.#random ^ choice) >>> 0;
    this.#seq++;
    const isVoid = this.#tenure !== 0 && choice % 17 === 0;
    const signer = this.#below(3);
    const control: { births: Birth[]; deaths: Death[] } = { births: [], deaths: [] };
    const body = isVoid ? this.#anything() : this.#legal(signer, control);
    const digest = createHash('sha256').update(`entry ${this.#seq} ${choice}`).digest();
    const point = this.#published.at(-1);
    if (point?.seq === this.#seq) this.#published[this.#published.length - 1] = { ...point, digest };
    const ownersOnly = body.type === 'publish' || body.type === 'rekey' || body.type === 'begin';
    const signerKeyId = filled(16, ownersOnly && !isVoid ? this.#owner : signer);
    const place = { machineId, seq: this.#seq, timeMs: this.#seq * 10, tenure: this.#tenure, signerKeyId, isVoid };
    return { entry: { ...place, body }, control: { ...control, summary: null }, digest };
  }

  summary(): Summary {
    const points = this.#points();
    return {
      tenure: this.#tenure,
      ownerKeyId: filled(16, this.#owner),
      hasPublished: this.#hasPublished,
      watermark: this.#watermark,
      epochs: this.#epochs,
      adopted: this.#adopted,
      lockGeneration: this.#lock.generation,
      lockUntilMs: this.#lock.untilMs,
      points: points.map((point) => (point.seq === this.#seq ? { ...point, digest: new Uint8Array(32) } : point)),
      segments: this.#lives().filter(
        ({ birth, death }) => death === 0 || points.some(({ seq }) => seq >= birth && seq < death),
      ),
    };
  }

  #anything(): EntryBody {
    const bodies: readonly EntryBody[] = [
      { type: 'begin', adopts: 5, epoch: 1, keyRecordDigest: filled(32, 1) },
      {
        type: 'prune',
        points: this.#points()
          .map(({ seq }) => seq)
          .concat(2 ** 40),
      },
      { type: 'lock', generation: 99, untilMs: 2 ** 40 },
    ];
    return bodies[this.#below(bodies.length)] ?? { type: 'lock', generation: 1, untilMs: 1 };
  }

  #legal(signer: number, control: { births: Birth[]; deaths: Death[] }): EntryBody {
    const kind = this.#below(20);
    if (this.#tenure === 0 || kind < 3) return this.#begin(signer);
    const prunable = this.#points().slice(0, -1);
    if (kind < 7 && prunable.length > 0) return this.#prune(prunable);
    if (kind === 7) return this.#locks();
    if (kind === 8) return this.#rekey();
    return this.#publish(control);
  }

  #begin(signer: number): EntryBody {
    const adopts = this.#tenure !== 0 && this.#below(2) === 0 ? this.#tenure : null;
    const inherited = this.#hasPublished ? [] : this.#adopted;
    this.#adopted = adopts === null ? [] : [...inherited, { tenure: adopts, watermark: this.#watermark }];
    const last = this.#epochs.at(-1);
    if (last === undefined || this.#below(4) === 0) this.#announce();
    const { epoch, keyRecordDigest } = this.#epochs.at(-1) ?? this.#announce();
    this.#tenure = this.#seq;
    this.#owner = signer;
    this.#hasPublished = false;
    this.#watermark = 0;
    this.#lastNumber = 0;
    return { type: 'begin', adopts, epoch, keyRecordDigest };
  }

  #announce(): { epoch: number; keyRecordDigest: Uint8Array } {
    const epoch = (this.#epochs.at(-1)?.epoch ?? 0) + 1 + this.#below(3);
    const announced = { epoch, keyRecordDigest: filled(32, epoch % 256) };
    this.#epochs.push(announced);
    return announced;
  }

  #rekey(): EntryBody {
    return { type: 'rekey', ...this.#announce() };
  }

  #locks(): EntryBody {
    const [generation, untilMs] = [this.#lock.generation + this.#below(3), this.#below(10_000)];
    this.#lock = { generation, untilMs: Math.max(untilMs, this.#lock.untilMs) };
    return { type: 'lock', generation, untilMs };
  }

  #prune(prunable: readonly RetainedPoint[]): EntryBody {
    const some = prunable.filter(() => this.#below(3) === 0);
    const points = (some.length > 0 ? some : prunable.slice(0, 1)).map(({ seq }) => seq);
    for (const seq of points) this.#pruned.add(seq);
    return { type: 'prune', points };
  }

  #publish(control: { births: Birth[]; deaths: Death[] }): EntryBody {
    for (const { tenure, watermark } of this.#adopted)
      if (this.#below(2) === 0) this.#born(tenure, watermark + 1 + this.#below(3), control);
    for (let count = this.#below(3); count > 0; count--) {
      this.#lastNumber += 1 + this.#below(2);
      this.#born(this.#tenure, this.#lastNumber, control);
    }
    this.#lastNumber += this.#below(2);
    control.births.sort(byPlace);
    for (const segment of this.#segments) this.#die(segment, control);
    control.deaths.sort(byPlace);
    this.#watermark = this.#lastNumber;
    this.#hasPublished = true;
    this.#adopted = [];
    this.#published.push({ seq: this.#seq, timeMs: this.#seq * 10, digest: new Uint8Array(32) });
    const epoch = this.#epochs.at(-1)?.epoch ?? 0;
    return { type: 'publish', epoch, watermark: this.#watermark, immutableUntilMs: 0, sealedManifest: filled(1, 0) };
  }

  #born(tenure: number, number: number, control: { births: Birth[] }): void {
    const birth = { tenure, number, size: 100 + number, units: 1 + this.#below(6), sha256: filled(32, number % 256) };
    control.births.push(birth);
    this.#segments.push({ birth, bornAt: this.#seq, deaths: [] });
  }

  #die(segment: Segment, control: { deaths: Death[] }): void {
    const left = segment.birth.units - segment.deaths.reduce((sum, { units }) => sum + units, 0);
    if (left === 0 || this.#below(3) !== 0) return;
    const units = 1 + this.#below(left);
    segment.deaths.push({ seq: this.#seq, units });
    control.deaths.push({ tenure: segment.birth.tenure, number: segment.birth.number, units });
  }

  #points(): readonly RetainedPoint[] {
    return this.#published.filter(({ seq }) => !this.#pruned.has(seq));
  }

  #lives(): readonly SegmentLife[] {
    const lives = this.#segments.map(({ birth, bornAt, deaths }) => {
      const dead = deaths.reduce((sum, { units }) => sum + units, 0);
      return { ...birth, dead, birth: bornAt, death: dead === birth.units ? (deaths.at(-1)?.seq ?? 0) : 0 };
    });
    return lives.sort(byPlace);
  }

  #below(max: number): number {
    this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#random / 2 ** 32) * max);
  }
}

function byPlace(
  a: { readonly tenure: number; readonly number: number },
  b: { readonly tenure: number; readonly number: number },
): number {
  return a.tenure === b.tenure ? a.number - b.number : a.tenure - b.tenure;
}
