import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { SourceNotFound } from '../../../hypervisors/errors.ts';
import { connectHyperv } from '../../../hypervisors/hyperv/hyperv-connection.ts';
import { HypervUnreachable } from '../../../hypervisors/hyperv/hyperv-errors.ts';
import { HypervHosts } from '../../../hypervisors/hyperv/hyperv-hosts.ts';
import type { HypervHost, HypervMachine, HypervPace } from '../../../hypervisors/hyperv/hyperv-machine.ts';
import type { WorkerStreams } from '../../../hypervisors/hyperv/worker-client.ts';
import type { HypervisorConnection } from '../../../hypervisors/hypervisor.ts';
import { sparseFile } from '../vhdx/memory-file.ts';
import { fileOf } from './model-disk.ts';
import { ModelHost, modelVm } from './model-host.ts';
import { answerLine } from './model-protocol.ts';

/** The model behind streams of this process, with a death that can be set to any step. */

export const quickPace: HypervPace = { pollMsMax: 0, busyMs: 1_000, checkpointMs: 60_000, mergeMs: 60_000 };

export interface Death {
  /** So many more questions are answered. */
  after: number;
  /** Whether what the last question asks for still happens. */
  happens: boolean;
}

export class ModelLab implements Disposable {
  readonly model: ModelHost;
  readonly machine: HypervMachine;
  readonly #folder = mkdtempSync(join(tmpdir(), 'failkit-hyperv-'));
  /** Set: from then on nothing answers, and nothing can be started. */
  death: Death | null = null;
  /** So often no file can be opened, because somebody else has it, and how the system says so. */
  held = 0;
  heldAs: { code: string | number } = { code: 'EBUSY' };
  /** Questions and answers, as they went over the line. */
  readonly transcript: string[] = [];
  /** Another answer than the model's; null: that. */
  forge: (op: string) => object | null = () => null;

  constructor(changed: Partial<HypervMachine> = {}) {
    this.model = new ModelHost('/machines');
    this.machine = {
      ...{ name: 'web', host: this.#host(), vm: modelVm, excludedDisks: [], tracking: 'enable' },
      volumeFreeBytesMin: 2 ** 32,
      ...{ journalFolder: join(this.#folder, 'journal'), tag: 'a1b2c3d4' },
      ...changed,
    };
  }

  /** As a process of its own would, that protects this machine alone. */
  connect(): HypervisorConnection {
    const hosts = new HypervHosts();
    const connection = connectHyperv([this.machine], hosts, quickPace);
    return { ...connection, [Symbol.asyncDispose]: () => hosts[Symbol.asyncDispose]() };
  }

  #host(): HypervHost {
    return {
      name: 'model',
      open: async () => ({
        startWorker: async () => this.#startWorker(),
        isLost: () => false,
        openFile: async (path) => {
          if (this.held > 0) {
            this.held--;
            throw new SourceNotFound(`${path} can't be opened`, {
              cause: Object.assign(new Error('held'), this.heldAs),
            });
          }
          const found = this.model.file(path);
          const made = found === null ? null : fileOf(found.disk, path);
          return made === null ? null : sparseFile(path, made);
        },
        [Symbol.asyncDispose]: async () => undefined,
      }),
    };
  }

  #startWorker(): WorkerStreams {
    if (this.death !== null && this.death.after <= 0) throw new HypervUnreachable('the agent is dead');
    const [input, output, complaints] = [new PassThrough(), new PassThrough(), new PassThrough()];
    const end = (): void => {
      output.destroy();
    };
    input.on('data', (chunk: Buffer) => {
      const line = chunk.toString();
      const { id, op } = JSON.parse(line) as { id: number; op: string };
      const isLast = this.death !== null && --this.death.after <= 0;
      if (isLast && this.death?.happens === true) answerLine(this.model, line);
      if (isLast) end();
      else {
        const forged = this.forge(op);
        const answer = forged === null ? answerLine(this.model, line) : JSON.stringify({ id, ok: true, value: forged });
        this.transcript.push(line.trim(), answer);
        output.write(`${answer}\n`);
      }
    });
    return { input, output, complaints, kill: end };
  }

  spoilJournal(): void {
    const { journalFolder } = this.machine;
    for (const name of readdirSync(journalFolder)) writeFileSync(join(journalFolder, name), '{"version":1,');
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}
