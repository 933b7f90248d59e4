import {
  changesBetween,
  freeze,
  guidOf,
  type ModelDisk,
  type ModelFile,
  merge,
  newDisk,
  trackingId,
  writeTo,
} from './model-disk.ts';

/**
 * A Hyper-V host of our own making with one machine: what it shows about a real one is nothing. It knows exactly what was written since
 * when, and what every disk held at every checkpoint.
 */

export interface ModelCheckpoint {
  readonly id: string;
  readonly name: string;
  readonly recovery: boolean;
  readonly createdAt: string;
  readonly foreign: boolean;
  /** By the keys of disks: how many writes there were. */
  readonly writes: Readonly<Record<string, number>>;
}

export interface ModelPoint {
  readonly id: string;
  readonly foreign: boolean;
  readonly disks: readonly { readonly key: string; readonly tracking: string }[];
}

interface ModelJob {
  readonly id: string;
  /** What is said of it before it ends. */
  states: number[];
  readonly failure: ModelFailure | null;
  readonly effect: Effect;
  made: string[];
  isOver: boolean;
  /** How often it may still be asked for after its end. */
  remembered: number;
}

export interface ModelFailure {
  /** Of the job; null: the call itself refuses. */
  readonly jobState: 8 | 9 | 10 | null;
  readonly returnValue: number;
  readonly hresult: string | null;
  /** It fails, and what was asked for happens all the same. */
  readonly happensAnyway?: boolean;
}

type Effect =
  | { readonly kind: 'checkpoint'; readonly name: string; readonly recovery: boolean; readonly foreign: boolean }
  | { readonly kind: 'convert' | 'destroy'; readonly id: string };

/** How it behaves; a test changes it at any time. */
export interface ModelManners {
  keepsNames: boolean;
  saysWhatItMade: boolean;
  jobStates: number[];
  jobsRemembered: number;
  /** Bytes that one question about changes is answered for, at most; 0: all. */
  windowBytes: number;
  unaligned: boolean;
  vssFails: boolean;
  /** So many times it has to be told to merge. */
  mergeRefusals: number;
  mergesDisks: boolean;
  owner: string | null;
  enabledState: number;
  status: number[];
  version: string;
  clockAheadMs: number;
  generation: 1 | 2;
  replication: number;
  quiesces: boolean;
  administers: boolean;
  freeBytes: number;
  failures: { readonly op: string; readonly failure: ModelFailure }[];
}

export class WmiRefusal extends Error {
  readonly failure: Pick<ModelFailure, 'returnValue' | 'hresult'>;
  readonly kind: 'refused' | 'not-found';
  constructor(kind: 'refused' | 'not-found', failure: Pick<ModelFailure, 'returnValue' | 'hresult'>) {
    super(`refused with ${failure.returnValue}`);
    this.failure = failure;
    this.kind = kind;
  }
}

export const modelVm = '6f0d7a52-3c7b-4f0e-9a7e-1c2f3a4b5c6d';
export const modelNode = 'HV-NODE-1';
const notFound = { returnValue: 32_779, hresult: '0x80070002' };

export class ModelHost {
  readonly folder: string;
  disks: ModelDisk[] = [];
  checkpoints: ModelCheckpoint[] = [];
  points: ModelPoint[] = [];
  jobs: ModelJob[] = [];
  /** Merges that are under way. */
  merging = 0;
  /** Of whatever was made. */
  numbers: number;
  manners: ModelManners = {
    ...{ keepsNames: true, saysWhatItMade: true, jobStates: [2, 3, 4], jobsRemembered: 100, windowBytes: 0 },
    ...{ unaligned: false, vssFails: false, mergeRefusals: 0, mergesDisks: true, owner: null, enabledState: 2 },
    ...{ status: [2], version: '9.0', clockAheadMs: 0, generation: 2, replication: 0, quiesces: true },
    ...{ administers: true, freeBytes: 50 * 2 ** 30, failures: [] },
  };

  constructor(folder: string, numbers = 0) {
    this.folder = folder;
    this.numbers = numbers;
  }

  addDisk(label: string, content: Buffer): ModelDisk {
    const number = this.#next();
    const disk = newDisk(label, `${guidOf(label)}\\0\\${number}\\D`, `${this.folder}/disk-${number}.vhdx`, content);
    this.disks.push(disk);
    return disk;
  }

  write(label: string, offset: number, bytes: Uint8Array): void {
    writeTo(this.disk(label), offset, bytes);
  }

  disk(label: string): ModelDisk {
    const disk = this.disks.find((each) => each.label === label);
    if (disk === undefined) throw new Error(`there is no disk ${label}`);
    return disk;
  }

  file(path: string): { readonly disk: ModelDisk; readonly file: ModelFile } | null {
    for (const disk of this.disks) for (const file of disk.frozen) if (file.path === path) return { disk, file };
    return null;
  }

  /** Another product, or a person. */
  makeCheckpoint(name: string, recovery: boolean): ModelCheckpoint {
    return this.#makeCheckpoint(name, recovery, true);
  }

  makeForeignPoint(): void {
    const disks = this.disks.map((disk) => ({ key: disk.key, tracking: trackingId(disk, disk.writes) }));
    this.points.push({ id: this.#id('point'), foreign: true, disks });
  }

  removeCheckpoint(id: string): void {
    if (this.checkpoints.every((each) => each.id !== id)) throw new WmiRefusal('not-found', notFound);
    this.checkpoints = this.checkpoints.filter((each) => each.id !== id);
    this.merging++;
  }

  removePoint(id: string): void {
    if (this.points.every((each) => each.id !== id)) throw new WmiRefusal('not-found', notFound);
    this.points = this.points.filter((each) => each.id !== id);
  }

  /** Whatever is asked, time passes. */
  tick(): void {
    for (const job of this.jobs) {
      if (job.states.length > 0) job.states.shift();
      else if (job.remembered > 0) job.remembered--;
      if (job.states.length === 0 && job.remembered > 0) this.#end(job);
    }
    this.jobs = this.jobs.filter(({ states, remembered }) => states.length > 0 || remembered > 0);
    this.#mergeOn();
  }

  start(op: string, effect: Effect): { readonly job: string | null; readonly made: string | null } {
    const at = this.manners.failures.findIndex((each) => each.op === op);
    const failure = at < 0 ? null : (this.manners.failures.splice(at, 1)[0]?.failure ?? null);
    if (failure !== null && failure.jobState === null) {
      if (failure.happensAnyway === true) this.#apply(effect);
      throw new WmiRefusal('refused', failure);
    }
    const { jobStates, jobsRemembered, saysWhatItMade } = this.manners;
    if (jobStates.length === 0 && failure === null) {
      const made = this.#apply(effect);
      return { job: null, made: saysWhatItMade ? made : null };
    }
    const job = {
      id: this.#id('job'),
      states: [4, ...jobStates],
      failure,
      effect,
      made: [],
      isOver: false,
      remembered: jobsRemembered,
    };
    this.jobs.push(job);
    return { job: job.id, made: null };
  }

  job(id: string): ModelJob {
    const found = this.jobs.find((each) => each.id === id);
    if (found === undefined) throw new WmiRefusal('not-found', notFound);
    return found;
  }

  enableMerging(): void {
    this.manners.mergesDisks = true;
    if (this.manners.mergeRefusals > 0) this.manners.mergeRefusals--;
  }

  #end(job: ModelJob): void {
    if (job.isOver) return;
    job.isOver = true;
    if (job.failure !== null && job.failure.happensAnyway !== true) return;
    const made = this.#apply(job.effect);
    if (made !== null && this.manners.saysWhatItMade) job.made.push(made);
  }

  #apply(effect: Effect): string | null {
    if (effect.kind === 'checkpoint') return this.#makeCheckpoint(effect.name, effect.recovery, effect.foreign).id;
    const checkpoint = this.checkpoints.find(({ id }) => id === effect.id);
    if (effect.kind === 'destroy') {
      if (checkpoint !== undefined) this.removeCheckpoint(effect.id);
      else if (this.points.some(({ id }) => id === effect.id)) this.removePoint(effect.id);
      return null;
    }
    if (checkpoint === undefined) return null;
    this.removeCheckpoint(effect.id);
    const disks = this.disks.flatMap((disk) => {
      const writes = checkpoint.writes[disk.key];
      return writes === undefined ? [] : [{ key: disk.key, tracking: trackingId(disk, writes) }];
    });
    const point = { id: this.#id('point'), foreign: false, disks };
    this.points.push(point);
    return point.id;
  }

  #makeCheckpoint(name: string, recovery: boolean, foreign: boolean): ModelCheckpoint {
    const number = this.#next();
    for (const disk of this.disks) freeze(disk, String(number));
    const writes = Object.fromEntries(this.disks.map((disk) => [disk.key, disk.writes]));
    const kept = foreign || this.manners.keepsNames ? name : 'web - (checkpoint)';
    const createdAt = this.now().toISOString();
    const made = {
      id: `Microsoft:${guidOf(`checkpoint ${number}`)}`,
      name: kept,
      recovery,
      createdAt,
      foreign,
      writes,
    };
    this.checkpoints.push(made);
    return made;
  }

  now(): Date {
    return new Date(Date.now() + this.manners.clockAheadMs);
  }

  /** Reference points that are left over keep Hyper-V from merging. */
  #mergeOn(): void {
    const { mergesDisks, mergeRefusals } = this.manners;
    const ours = this.points.filter(({ foreign }) => !foreign).length;
    if (this.merging === 0 || !mergesDisks || mergeRefusals > 0 || ours > 1) return;
    this.merging--;
    for (const disk of this.disks) merge(disk);
  }

  #id(kind: string): string {
    return `${kind}-${guidOf(`${kind} ${this.#next()}`)}`;
  }

  #next(): number {
    return ++this.numbers;
  }

  changes(
    path: string,
    since: string,
    offset: number,
    length: number,
  ): { offsets: number[]; lengths: number[]; processed: number } {
    const found = this.file(path);
    if (found === null) throw new WmiRefusal('not-found', notFound);
    const changes = changesBetween(found.disk, since, found.file);
    if (changes === null) throw new WmiRefusal('refused', { returnValue: 32_768, hresult: '0xC03A0029' });
    const { windowBytes, unaligned } = this.manners;
    const processed = windowBytes === 0 ? length : Math.min(length, windowBytes);
    const [from, to] = [offset, offset + processed];
    const ranges = changes.flatMap((change) => {
      // Tracking is by larger pieces than what was written, and tells them as it likes.
      const start = Math.max(from, unaligned ? change.offset - 3 : change.offset);
      const end = Math.min(to, change.offset + change.length + (unaligned ? 5 : 0));
      return start < end ? [{ start, end }] : [];
    });
    return {
      ...{ processed, offsets: ranges.map(({ start }) => start) },
      lengths: ranges.map(({ start, end }) => end - start),
    };
  }
}
