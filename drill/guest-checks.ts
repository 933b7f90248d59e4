import { setTimeout as sleep } from 'node:timers/promises';
import { askGuest, GuestAgentFailed } from '../hypervisors/kvm/guest-agent.ts';
import type { CheckResult, DrillCheck, DrillFinding } from './drill.ts';

/** What is looked at inside a machine that runs, through its guest agent: it has no network that leads here. */

const answerTimeoutMs = 10_000;
const retryMs = 500;
const retryForMs = 30_000;
const fileChunkBytes = 65_536;
const fileBytesMax = 4 * 1024 * 1024;
const listening = '0A';

export interface CheckOutcome {
  readonly result: CheckResult;
  readonly finding: DrillFinding | null;
  /** What a command printed. */
  readonly output: string | null;
}

/** Who the guest says it is; what it does not tell is left out. */
export async function guestFacts(agent: string, signal: AbortSignal): Promise<Readonly<Record<string, unknown>>> {
  const facts: Record<string, unknown> = {};
  for (const [name, command] of [
    ['os', 'guest-get-osinfo'],
    ['hostName', 'guest-get-host-name'],
    ['agent', 'guest-info'],
  ] as const) {
    try {
      const { answer } = await askGuest(agent, command, answerTimeoutMs, signal);
      facts[name] = name === 'agent' ? (isRecord(answer) ? answer.version : null) : answer;
    } catch (error) {
      if (!(error instanceof GuestAgentFailed)) throw error;
    }
  }
  return facts;
}

/** Tries it again for a while: services start after the agent. `deadlineMs`, by `performance.now()`, bounds each try. */
export async function runCheck(
  check: DrillCheck,
  agent: string,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<CheckOutcome> {
  const retryUntilMs = Math.min(deadlineMs, performance.now() + retryForMs);
  for (;;) {
    const outcome = await tryCheck(check, agent, deadlineMs, signal);
    if (outcome.finding === null || performance.now() >= retryUntilMs) return outcome;
    await sleep(retryMs, undefined, { signal });
  }
}

async function tryCheck(
  check: DrillCheck,
  agent: string,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<CheckOutcome> {
  try {
    return check.kind === 'port'
      ? await checkPort(check.port, agent, signal)
      : await checkCommand(check.command, agent, deadlineMs, signal);
  } catch (error) {
    if (!(error instanceof GuestAgentFailed)) throw error;
    return outcomeOf(check, false, error.message, null);
  }
}

/** By the guest's own list of sockets: a connection needs a network. */
async function checkPort(port: number, agent: string, signal: AbortSignal): Promise<CheckOutcome> {
  const tables = [await readGuestFile('/proc/net/tcp', agent, signal)];
  // A kernel without IPv6 has no such file.
  tables.push(await readGuestFile('/proc/net/tcp6', agent, signal).catch(ignoreRefusal));
  const isOpen = tables.some((table) => listensOn(table, port));
  return outcomeOf({ kind: 'port', port }, isOpen, isOpen ? 'something listens' : 'nothing listens', null);
}

function ignoreRefusal(error: unknown): string {
  if (error instanceof GuestAgentFailed) return '';
  throw error;
}

export function listensOn(table: string, port: number): boolean {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return table.split('\n').some((line) => {
    const [, local = '', , state] = line.trim().split(/\s+/);
    return local.endsWith(`:${hex}`) && state === listening;
  });
}

async function readGuestFile(path: string, agent: string, signal: AbortSignal): Promise<string> {
  const ask = async (command: string, args: object) =>
    (await askGuest(agent, command, answerTimeoutMs, signal, { args: { ...args } })).answer;
  const handle = await ask('guest-file-open', { path, mode: 'r' });
  try {
    let text = '';
    while (text.length < fileBytesMax) {
      const read = await ask('guest-file-read', { handle, count: fileChunkBytes });
      if (!isRecord(read)) break;
      text += Buffer.from(String(read['buf-b64'] ?? ''), 'base64').toString('latin1');
      if (read.eof === true || read.count === 0) break;
    }
    return text;
  } finally {
    await ask('guest-file-close', { handle });
  }
}

/** It runs in a shell of the guest; exit code 0 passes. */
async function checkCommand(
  command: string,
  agent: string,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<CheckOutcome> {
  const check = { kind: 'command', command } as const;
  const facts = await guestFacts(agent, signal);
  const isWindows = isRecord(facts.os) && facts.os.id === 'mswindows';
  const shell = isWindows ? { path: 'cmd.exe', arg: ['/c', command] } : { path: '/bin/sh', arg: ['-c', command] };
  const started = await askGuest(agent, 'guest-exec', answerTimeoutMs, signal, {
    args: { ...shell, 'capture-output': true },
  });
  const pid = isRecord(started.answer) ? started.answer.pid : null;
  for (;;) {
    const { answer } = await askGuest(agent, 'guest-exec-status', answerTimeoutMs, signal, { args: { pid } });
    if (isRecord(answer) && answer.exited === true) return judge(check, answer);
    if (performance.now() > deadlineMs) return outcomeOf(check, false, 'it did not end in time', null);
    await sleep(retryMs, undefined, { signal });
  }
}

function judge(check: DrillCheck, answer: Readonly<Record<string, unknown>>): CheckOutcome {
  const textOf = (name: string): string => Buffer.from(String(answer[name] ?? ''), 'base64').toString('utf8');
  const output = textOf('out-data') + textOf('err-data');
  const code = answer.exitcode ?? `signal ${String(answer.signal)}`;
  const lastLine = output.trim().split('\n').at(-1) ?? '';
  return outcomeOf(check, code === 0, `exit code ${String(code)}${lastLine === '' ? '' : `: ${lastLine}`}`, output);
}

function outcomeOf(check: DrillCheck, passed: boolean, what: string, output: string | null): CheckOutcome {
  const name = check.kind === 'port' ? `port ${check.port}` : `command ${check.command}`;
  return {
    result: { check: name, outcome: passed ? 'passed' : 'failed', what },
    finding: passed
      ? null
      : { code: check.kind === 'port' ? 'PORT_CLOSED' : 'COMMAND_FAILED', what: `${name}: ${what}` },
    output,
  };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
