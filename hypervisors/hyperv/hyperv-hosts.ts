import { untilAborted } from '../until-aborted.ts';
import type { HypervHost, HypervMachine, HypervPace } from './hyperv-machine.ts';
import type { HypervSite } from './hyperv-site.ts';
import { RunJournal } from './run-journal.ts';
import { WorkerClient } from './worker-client.ts';

interface OpenHost extends AsyncDisposable {
  readonly client: WorkerClient;
  readonly openFile: HypervSite['openFile'];
  isLost(): boolean;
}

/**
 * The hosts of all machines of a process: one worker and one connection for each, however many machines and runs. Each is opened when it
 * is first needed, anew when its connection broke, and closed with all others.
 */
export class HypervHosts implements AsyncDisposable {
  readonly #open = new Map<string, Promise<OpenHost>>();
  readonly #closing = new AbortController();

  async open(host: HypervHost, signal: AbortSignal): Promise<OpenHost> {
    signal.throwIfAborted();
    const known = this.#open.get(host.name);
    const opening = known ?? this.#begin(host);
    const opened = await untilAborted(opening, signal);
    if (known === undefined || !opened.isLost()) return opened;
    // Whoever sees it first opens another one, and all others get that.
    if (this.#open.get(host.name) === opening) {
      this.#open.delete(host.name);
      await opened[Symbol.asyncDispose]();
    }
    return await this.open(host, signal);
  }

  async site(machine: HypervMachine, pace: HypervPace, signal: AbortSignal): Promise<HypervSite> {
    const { client, openFile } = await this.open(machine.host, signal);
    const journal = await RunJournal.open(machine.journalFolder, `${machine.vm}-${machine.tag}`);
    return { client, openFile, machine, journal, pace };
  }

  /** Under no caller's signal: others may wait for it, too. */
  #begin(host: HypervHost): Promise<OpenHost> {
    const opening = openHost(host, this.#closing.signal);
    this.#open.set(host.name, opening);
    opening.catch(() => {
      if (this.#open.get(host.name) === opening) this.#open.delete(host.name);
    });
    return opening;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await using closing = new AsyncDisposableStack();
    for (const opening of this.#open.values()) {
      const opened = await opening.catch(() => null);
      if (opened !== null) closing.use(opened);
    }
    this.#open.clear();
  }
}

async function openHost(host: HypervHost, signal: AbortSignal): Promise<OpenHost> {
  await using opening = new AsyncDisposableStack();
  const opened = opening.use(await host.open(signal));
  const client = opening.use(new WorkerClient(`Hyper-V host ${host.name}`, opened.startWorker));
  const held = opening.move();
  return {
    ...{ client, openFile: opened.openFile, isLost: opened.isLost },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}
