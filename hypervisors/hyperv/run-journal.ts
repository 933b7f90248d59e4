import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { HypervJournalUnusable } from './hyperv-errors.ts';

/**
 * What belongs to us on a host, written down before it is asked for: whoever comes after a crash, on this host or another node, finds it
 * here, and touches nothing else.
 */

const journaledDisk = z.object({ key: z.string(), identity: z.string().nullable(), capacityBytes: z.number() });

const journaledRun = z.object({
  /** Of its own making, and part of its checkpoint's name. */
  id: z.string(),
  /**
   * `asked` for a checkpoint; it was `taken`; it is `converting` into a reference point, which means that its point was published;
   * `kept`: the reference point is there. `superseded`: it has none, and an older run's stands in for it, whose changes are more.
   */
  stage: z.enum(['asked', 'taken', 'converting', 'kept', 'superseded']),
  /** By the host's clock. */
  at: z.iso.datetime(),
  /** Hyper-V's own work at the stage that it is in. */
  job: z.string().nullable(),
  /** What was there of the kind that is asked for, before. */
  before: z.array(z.string()),
  checkpoint: z.string().nullable(),
  referencePoint: z.string().nullable(),
  /** By the keys of disks: ids to ask by what changed since. */
  tracking: z.record(z.string(), z.string()),
  disks: z.array(journaledDisk),
  /** The run whose reference point this one's changes were asked by; null: everything was read. */
  basis: z.string().nullable(),
});
export type JournaledRun = z.output<typeof journaledRun>;

const journal = z.object({
  version: z.literal(1),
  /** Whether this host gives checkpoints the name that we ask for; null: not known yet. */
  keepsNames: z.boolean().nullable(),
  runs: z.array(journaledRun).max(1000),
  /** By the labels of disks: how often in a row it was not known what changed, and why the last time. */
  losses: z.record(z.string(), z.object({ times: z.number(), why: z.string() })).default({}),
});
type Journal = z.output<typeof journal>;

export class RunJournal {
  readonly #file: string;
  #content: Journal;
  #turn: Promise<void> = Promise.resolve();

  private constructor(file: string, content: Journal) {
    this.#file = file;
    this.#content = content;
  }

  /** Throws HypervJournalUnusable. */
  static async open(folder: string, name: string): Promise<RunJournal> {
    const file = join(folder, `${name}.json`);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const text = await readFile(file, 'utf8').catch(absent);
      const content = text === null ? { version: 1, keepsNames: null, runs: [] } : JSON.parse(text);
      return new RunJournal(file, journal.parse(content));
    } catch (cause) {
      throw new HypervJournalUnusable(`${file} can't be used: what it says belongs to us on the host is not known`, {
        cause,
      });
    }
  }

  get runs(): readonly JournaledRun[] {
    return this.#content.runs;
  }

  get keepsNames(): boolean | null {
    return this.#content.keepsNames;
  }

  find(id: string): JournaledRun | null {
    return this.runs.find((run) => run.id === id) ?? null;
  }

  async learnNames(keepsNames: boolean): Promise<void> {
    if (keepsNames !== this.keepsNames) await this.#change((content) => ({ ...content, keepsNames }));
  }

  /** Adds it, or replaces it. Returns it as it is then. */
  async put(run: JournaledRun): Promise<JournaledRun> {
    await this.#change((content) => ({ ...content, runs: [...content.runs.filter(({ id }) => id !== run.id), run] }));
    return run;
  }

  get losses(): Journal['losses'] {
    return this.#content.losses;
  }

  /** One full read is no matter; a disk that needs one each time is. */
  async noteLoss(label: string, why: string): Promise<void> {
    await this.#change((content) => {
      const { times } = content.losses[label] ?? { times: 0 };
      return { ...content, losses: { ...content.losses, [label]: { times: times + 1, why } } };
    });
  }

  async noteKnown(label: string): Promise<void> {
    if (this.losses[label] === undefined) return;
    await this.#change((content) => {
      const { [label]: _, ...losses } = content.losses;
      return { ...content, losses };
    });
  }

  async drop(id: string): Promise<void> {
    await this.#change((content) => ({ ...content, runs: content.runs.filter((run) => run.id !== id) }));
  }

  /** One after the other: several disks of a machine may be read at one time. */
  async #change(edit: (content: Journal) => Journal): Promise<void> {
    const written = this.#turn.then(() => this.#write(edit(this.#content)));
    this.#turn = written.catch(() => undefined);
    await written;
  }

  /** Whole or as it was, also after a power loss. */
  async #write(content: Journal): Promise<void> {
    const unfinished = `${this.#file}.unfinished`;
    try {
      await using opening = new AsyncDisposableStack();
      const handle = opening.use(await open(unfinished, 'w', 0o600));
      await handle.writeFile(JSON.stringify(content));
      await handle.sync();
      await opening.disposeAsync();
      await rename(unfinished, this.#file);
      await syncFolder(join(this.#file, '..'));
    } catch (cause) {
      await rm(unfinished, { force: true }).catch(() => undefined);
      throw new HypervJournalUnusable(`${this.#file} can't be written: without it nothing is asked of the host`, {
        cause,
      });
    }
    this.#content = content;
  }
}

/** Windows can't open folders; there the file system journals names by itself. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  await using handle = await open(folder, 'r');
  await handle.sync();
}

function absent(error: unknown): null {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
  throw error;
}
