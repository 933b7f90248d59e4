import { SourceNotFound } from '../errors.ts';
import type { HypervisorConnection } from '../hypervisor.ts';
import { askMachine } from './hyperv-calls.ts';
import { type HypervHost, type HypervMachine, type HypervPace, usualPace } from './hyperv-machine.ts';
import { chooseDisks, type HypervSite } from './hyperv-site.ts';
import { RunJournal } from './run-journal.ts';
import { snapshotByHyperv } from './snapshot-by-hyperv.ts';
import { WorkerClient } from './worker-client.ts';

/** The `hyperv` source: machines of Hyper-V hosts. One worker for each host, however many machines. */
export function connectHyperv(machines: readonly HypervMachine[], pace: HypervPace = usualPace): HypervisorConnection {
  const hosts = new HypervHosts();
  return {
    async *listMachines(signal) {
      for (const machine of machines) {
        const { client } = await hosts.open(machine.host, signal);
        const { chosen } = chooseDisks(machine, (await askMachine(client, machine.vm, signal, true)).disks);
        const disks = chosen.map(({ label, capacityBytes }) => ({ label, capacityBytes: capacityBytes ?? 0 }));
        yield { name: machine.name, disks };
      }
    },
    async snapshot({ name }, options, signal) {
      signal.throwIfAborted();
      const machine = machines.find((each) => each.name === name);
      if (machine === undefined)
        throw new SourceNotFound(
          `machine ${name} is not configured as a machine of Hyper-V: add it to the configuration`,
        );
      return await snapshotByHyperv(await hosts.site(machine, pace, signal), options, signal);
    },
    [Symbol.asyncDispose]: () => hosts[Symbol.asyncDispose](),
  };
}

interface OpenHost {
  readonly client: WorkerClient;
  readonly openFile: HypervSite['openFile'];
}

/** Each is opened once, and closed with all others. */
export class HypervHosts implements AsyncDisposable {
  readonly #open = new Map<string, Promise<OpenHost>>();
  readonly #opened = new AsyncDisposableStack();

  async open(host: HypervHost, signal: AbortSignal): Promise<OpenHost> {
    const opening = this.#open.get(host.name) ?? this.#begin(host, signal);
    this.#open.set(host.name, opening);
    return await opening;
  }

  async site(machine: HypervMachine, pace: HypervPace, signal: AbortSignal): Promise<HypervSite> {
    const host = await this.open(machine.host, signal);
    const journal = await RunJournal.open(machine.journalFolder, `${machine.vm}-${machine.tag}`);
    return { ...host, machine, journal, pace };
  }

  async #begin(host: HypervHost, signal: AbortSignal): Promise<OpenHost> {
    try {
      const opened = this.#opened.use(await host.open(signal));
      const client = this.#opened.use(new WorkerClient(`Hyper-V host ${host.name}`, opened.startWorker));
      return { client, openFile: opened.openFile };
    } catch (error) {
      this.#open.delete(host.name);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync();
  }
}
