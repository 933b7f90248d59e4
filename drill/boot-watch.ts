import { setTimeout as sleep } from 'node:timers/promises';
import { askGuest, GuestAgentFailed } from '../hypervisors/kvm/guest-agent.ts';
import type { QmpEvent } from '../hypervisors/kvm/qmp-client.ts';
import { bootLoaderStarted, failureIn, kernelStarted } from './console-signs.ts';
import type { DrillFinding, PhaseName, Reach } from './drill.ts';
import type { DrillQemu } from './drill-qemu.ts';
import { agentPortId } from './qemu-arguments.ts';

/** Follows a machine from its power-on to where it has to get, or to where it fails. */

const pingTimeoutMs = 5_000;
const pingPauseMs = 200;
/** What a failing machine still has to say. */
const lastWordsMs = 500;

type Seen = Extract<PhaseName, 'firmware' | 'kernel' | 'agent'>;

export class BootWatch implements Disposable {
  readonly #qemu: DrillQemu;
  readonly #reach: Reach;
  readonly #seen = new Map<Seen, number>();
  readonly #over = new AbortController();
  readonly #end = Promise.withResolvers<DrillFinding | null>();
  readonly #listening: Disposable;
  /** The agent opened its port; nobody answers there before. */
  readonly #agentListens: Promise<void>;
  #agentIsThere: () => void = () => undefined;
  /** What has to be explained once it has said its last words. */
  #ending: DrillFinding | null = null;
  #firmwareSpoke = false;

  constructor(qemu: DrillQemu, reach: Reach) {
    this.#qemu = qemu;
    this.#reach = reach;
    this.#agentListens = new Promise((resolve) => {
      this.#agentIsThere = resolve;
    });
    qemu.firmware.onText = (tail) => this.#onFirmware(tail);
    qemu.serial.onText = (tail) => this.#onSerial(tail);
    this.#listening = qemu.qmp.listen((event) => this.#onEvent(event));
    void qemu.ended.then(() => this.#failSoon({ code: 'MACHINE_ENDED', what: 'QEMU ended: see qemu.log' }));
  }

  /** When each was reached, by `performance.now()`. */
  get seen(): ReadonlyMap<Seen, number> {
    return this.#seen;
  }

  /** What it does now, for a person. */
  get doing(): string {
    if (this.#seen.has('agent')) return 'the guest agent answers';
    if (this.#seen.has('kernel')) return this.#reach === 'agent' ? 'waiting for the guest agent' : 'the kernel runs';
    return this.#seen.has('firmware') ? 'waiting for the kernel' : 'waiting for the firmware';
  }

  /** Null: it got there. Otherwise why it did not. */
  async wait(timeoutMs: number, signal: AbortSignal): Promise<DrillFinding | null> {
    const stopped = AbortSignal.any([signal, this.#over.signal]);
    if (this.#reach === 'agent') void this.#agentListens.then(() => this.#pingUntil(stopped));
    const late = sleep(timeoutMs, null, { signal: stopped })
      .then(() => this.#lateBy(timeoutMs))
      .catch(() => null);
    const interrupted = Promise.withResolvers<never>();
    const onAbort = (): void => interrupted.reject(signal.reason);
    signal.addEventListener('abort', onAbort);
    try {
      signal.throwIfAborted();
      return await Promise.race([
        this.#end.promise,
        interrupted.promise,
        late.then((found) => found ?? this.#end.promise),
      ]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#over.abort();
    }
  }

  #onFirmware(tail: string): void {
    this.#firmwareSpoke = true;
    if (bootLoaderStarted.test(tail)) this.#reached('firmware');
    const failure = failureIn(tail, 'firmware');
    if (failure !== null) this.#failSoon(failure);
  }

  #onSerial(tail: string): void {
    if (bootLoaderStarted.test(tail)) this.#reached('firmware');
    if (kernelStarted.test(tail)) this.#reached('kernel');
    const failure = failureIn(tail, 'serial');
    if (failure !== null) this.#failSoon(failure);
  }

  #onEvent({ event, data }: QmpEvent): void {
    if (event === 'VSERPORT_CHANGE' && data.id === agentPortId && data.open === true) this.#agentIsThere();
    if (event === 'GUEST_PANICKED') this.#failSoon({ code: 'KERNEL_PANIC', what: 'the kernel panicked' });
    if (event === 'SHUTDOWN' && data.guest === true)
      this.#failSoon({
        code: 'MACHINE_ENDED',
        what: String(data.reason).includes('reset') ? 'the machine reset itself' : 'the machine switched itself off',
      });
    if (event === 'BLOCK_IO_ERROR' && data.action === 'stop')
      this.#failSoon({
        code: 'DISK_FAILED',
        what:
          data.nospace === true
            ? 'the work folder has no room left for what the machine writes'
            : `disk ${String(data['node-name'])} could not be ${data.operation === 'read' ? 'read' : 'written'}: ${String(data.reason)}`,
      });
  }

  /** Whoever is further has passed what is before, seen or not: many machines have no serial console. */
  #reached(phase: Seen): void {
    if (this.#seen.has(phase)) return;
    const now = performance.now();
    if (phase !== 'firmware') this.#reached(phase === 'agent' ? 'kernel' : 'firmware');
    this.#seen.set(phase, now);
    if (phase === this.#reach) this.#end.resolve(null);
  }

  /** The console tells more than an event, and its text comes on another way: it gets a moment. */
  #failSoon(failure: DrillFinding): void {
    if (this.#ending !== null) return;
    this.#ending = failure;
    void sleep(lastWordsMs).then(() => {
      const said = failureIn(this.#qemu.serial.tail, 'serial') ?? failureIn(this.#qemu.firmware.tail, 'firmware');
      this.#end.resolve(said ?? withLastLine(failure, this.#qemu.serial.lastLine));
    });
  }

  async #pingUntil(stopped: AbortSignal): Promise<void> {
    while (!stopped.aborted) {
      try {
        await askGuest(this.#qemu.agentSocket, 'guest-ping', pingTimeoutMs, stopped);
        this.#reached('agent');
        return;
      } catch (error) {
        if (!(error instanceof GuestAgentFailed)) return;
      }
      await sleep(pingPauseMs, undefined, { signal: stopped }).catch(() => null);
    }
  }

  #lateBy(timeoutMs: number): DrillFinding {
    const within = `within ${Math.round(timeoutMs / 1000)} s`;
    if (this.#seen.has('kernel'))
      return withLastLine(
        {
          code: 'AGENT_SILENT',
          what: `the kernel started, but the guest agent did not answer ${within}: the boot hangs, or the machine has no guest agent (then say --reach kernel)`,
        },
        this.#qemu.serial.lastLine,
      );
    if (this.#seen.has('firmware'))
      return withLastLine(
        {
          code: 'KERNEL_SILENT',
          what: `the firmware started the boot loader, but neither a kernel on the serial console nor a guest agent spoke ${within}`,
        },
        this.#qemu.serial.lastLine,
      );
    const spoke = this.#firmwareSpoke ? 'started nothing from a disk' : 'did not say a word';
    return { code: 'FIRMWARE_SILENT', what: `the firmware ${spoke} ${within}` };
  }

  [Symbol.dispose](): void {
    this.#over.abort();
    this.#listening[Symbol.dispose]();
  }
}

function withLastLine({ code, what }: DrillFinding, line: string): DrillFinding {
  return { code, what: line === '' ? what : `${what}; the last line of its console: ${line}` };
}
