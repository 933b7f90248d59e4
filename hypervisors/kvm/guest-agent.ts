import { randomInt } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** The agent inside the guest, over its character device. https://www.qemu.org/docs/master/interop/qemu-ga-ref.html */

const connectTimeoutMs = 3_000;
/** One that is not running never answers. */
const answerTimeoutMs = 5_000;
/** Flushing a large page cache to a slow disk takes its time. */
const freezeTimeoutMs = 30_000;
const thawAttemptsMax = 5;
const thawPauseMs = 200;
const messageCharsMax = 1024 * 1024;
/** Ends whatever a client before us left half said; the answer to guest-sync-delimited begins with it. */
const sentinel = '\u00ff';

/** The guest agent is not there, does not answer, or said no. */
export class GuestAgentFailed extends Error {
  readonly code = 'GUEST_AGENT_FAILED';
  override readonly name = 'GuestAgentFailed';
  /** It answers, and said no. */
  readonly refused: boolean;
  constructor(message: string, { refused = false, ...options }: ErrorOptions & { readonly refused?: boolean } = {}) {
    super(message, options);
    this.refused = refused;
  }
}

/** The guest could not be thawed: everything in it waits. */
export class GuestStillFrozen extends Error {
  readonly code = 'GUEST_STILL_FROZEN';
  override readonly name = 'GuestStillFrozen';
}

/** Returns since when the guest may stand still, by `performance.now()`. What fails half way is thawed. */
export async function freezeGuest(socket: string, signal: AbortSignal): Promise<number> {
  try {
    const { askedAt, answer } = await askGuest(socket, 'guest-fsfreeze-freeze', freezeTimeoutMs, signal);
    if (!(Number(answer) > 0)) throw new GuestAgentFailed('the guest has no file system to freeze');
    return askedAt;
  } catch (error) {
    // It may have been frozen after all, or will be yet. One that refuses was frozen by somebody else, or thawed by itself.
    if (!(error instanceof GuestAgentFailed && error.refused)) await thawGuest(socket).catch(() => undefined);
    throw error;
  }
}

/** Whatever became of the run: it takes no signal. Returns whether it was frozen until now. Throws GuestStillFrozen. */
export async function thawGuest(socket: string): Promise<boolean> {
  const never = new AbortController().signal;
  for (let attempt = 1; ; attempt++) {
    try {
      const { answer } = await askGuest(socket, 'guest-fsfreeze-thaw', answerTimeoutMs, never, { waits: false });
      return Number(answer) > 0;
    } catch (cause) {
      if (attempt === thawAttemptsMax)
        throw new GuestStillFrozen(
          `the guest agent at ${socket} froze the guest and does not thaw it: run guest-fsfreeze-thaw by hand, or reset the machine`,
          { cause },
        );
    }
    await sleep(thawPauseMs);
  }
}

interface AskOptions {
  readonly args?: Readonly<Record<string, unknown>>;
  /** Not to ask before it is known that somebody listens. Otherwise one that is busy now does it as soon as it can. */
  readonly waits?: boolean;
}

/** One command on a connection of its own: others use the agent, too. Throws GuestAgentFailed, or the signal's reason. */
export async function askGuest(
  path: string,
  execute: string,
  timeoutMs: number,
  signal: AbortSignal,
  { args, waits = true }: AskOptions = {},
): Promise<{ readonly askedAt: number; readonly answer: unknown }> {
  signal.throwIfAborted();
  const socket = createConnection({ path });
  const limit = AbortSignal.any([signal, AbortSignal.timeout(connectTimeoutMs + timeoutMs)]);
  const talk = new Talk(socket, path, limit);
  try {
    const id = randomInt(2 ** 31);
    socket.write(Buffer.from(sentinel, 'latin1'));
    socket.write(JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } }));
    const synced = talk.answer((message) => message.return === id);
    if (waits) await synced;
    const askedAt = performance.now();
    socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    await synced;
    const message = await talk.answer(() => true);
    if (!('error' in message)) return { askedAt, answer: message.return };
    const why = JSON.stringify(message.error);
    throw new GuestAgentFailed(`the guest agent at ${path} refused ${execute}: ${why}`, { refused: true });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    socket.destroy();
  }
}

type Message = Readonly<Record<string, unknown>>;

/** What the agent says, message by message. */
class Talk {
  readonly #path: string;
  readonly #lines: AsyncIterator<string>;

  constructor(socket: Socket, path: string, limit: AbortSignal) {
    this.#path = path;
    socket.setEncoding('latin1');
    limit.addEventListener('abort', () => socket.destroy(new Error('no answer in time')), { once: true });
    this.#lines = linesOf(socket);
  }

  async answer(wanted: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const next = await this.#lines.next().catch((cause: unknown) => {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new GuestAgentFailed(`the guest agent at ${this.#path} does not answer: ${why}`, { cause });
      });
      if (next.done === true) throw new GuestAgentFailed(`the guest agent at ${this.#path} closed the connection`);
      const message = parseMessage(next.value);
      if (message !== null && wanted(message)) return message;
    }
  }
}

async function* linesOf(socket: Socket): AsyncGenerator<string> {
  let text = '';
  for await (const chunk of socket) {
    text += String(chunk);
    if (text.length > messageCharsMax) throw new Error('it says too much at once');
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    yield* lines;
  }
}

/** Null for what is left of an older talk. */
function parseMessage(line: string): Message | null {
  try {
    const parsed: unknown = JSON.parse(line.slice(line.lastIndexOf(sentinel) + 1));
    return typeof parsed === 'object' && parsed !== null ? { ...parsed } : null;
  } catch {
    return null;
  }
}
