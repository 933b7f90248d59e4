import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { NbdDisk } from './nbd-disk.ts';
import { NbdUnreachable } from './nbd-errors.ts';
import { parseNbdUri } from './nbd-uri.ts';

/** QEMU's own tools for image formats: `qemu-nbd` serves an image on a private socket, `qemu-img` makes and describes one. */

const startTimeoutMs = 20_000;
const pollMs = 20;
const toolTimeoutMs = 60_000;
const messageCharsMax = 500;

/** qemu-nbd or qemu-img is missing, or refused. */
export class QemuToolFailed extends Error {
  readonly code = 'QEMU_TOOL_FAILED';
  override readonly name = 'QemuToolFailed';
}

export interface ServeOptions {
  readonly path: string;
  /** As QEMU calls it; always named, for to let QEMU guess lets a guest choose by what it writes. */
  readonly format: string;
  readonly writable: boolean;
  /** Meta contexts to use where the server grants them. */
  readonly contexts: readonly string[];
  /** Persistent dirty bitmaps to export. */
  readonly bitmaps?: readonly string[];
  /** Export the context that tells what the image itself holds. */
  readonly allocationDepth?: boolean;
}

export interface ServedImage extends AsyncDisposable {
  readonly disk: NbdDisk;
}

/** Disposing it ends the server, which ends by itself, too, when this process is killed. Throws QemuToolFailed, or what NBD errors name. */
export async function serveImage(options: ServeOptions, signal: AbortSignal): Promise<ServedImage> {
  await using opening = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const socket = join(folder, 'socket');
  const server = opening.use(new QemuNbd(options, socket));
  const disk = opening.use(await connectWhenReady(server, socket, options.contexts, signal));
  const held = opening.move();
  return { disk, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

/** One qemu-nbd process. It ends with its last client; without any, when it is disposed. */
class QemuNbd implements AsyncDisposable {
  readonly path: string;
  readonly #server: ChildProcess;
  readonly #ended: Promise<void>;
  #failure: string | null = null;
  #log = '';

  constructor({ path, format, writable, bitmaps = [], allocationDepth }: ServeOptions, socket: string) {
    this.path = path;
    const mode = writable ? ['--discard=unmap', '--detect-zeroes=unmap'] : ['--read-only'];
    const args = [...mode, `--format=${format}`, `--socket=${socket}`, '--shared=8'];
    if (allocationDepth === true) args.push('--allocation-depth');
    args.push(...bitmaps.map((name) => `--bitmap=${name}`), '--', path);
    this.#server = spawn('qemu-nbd', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#server.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#log = (this.#log + text).slice(0, messageCharsMax);
    });
    this.#ended = new Promise((resolve) => {
      this.#server.once('error', (error) => {
        this.#failure = missingTool('qemu-nbd', error);
        resolve();
      });
      this.#server.once('close', (code) => {
        this.#failure ??= `${path}: qemu-nbd ended with ${code}: ${this.#log.trim()}`;
        resolve();
      });
    });
  }

  /** Why it can't be reached any more; null while it runs. */
  get failure(): string | null {
    return this.#failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.kill('SIGTERM');
    await this.#ended;
  }
}

/** The server makes its socket a moment after it starts. */
async function connectWhenReady(
  server: QemuNbd,
  socket: string,
  contexts: readonly string[],
  signal: AbortSignal,
): Promise<NbdDisk> {
  const address = parseNbdUri(`nbd+unix:///?socket=${encodeURIComponent(socket)}`);
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      return await NbdDisk.open(address, { contextsIfOffered: contexts }, signal);
    } catch (error) {
      if (server.failure !== null) throw new QemuToolFailed(server.failure, { cause: error });
      if (!(error instanceof NbdUnreachable)) throw error;
      if (performance.now() > deadline)
        throw new QemuToolFailed(`${server.path}: qemu-nbd did not start within ${startTimeoutMs / 1000} s`, {
          cause: error,
        });
    }
    await sleep(pollMs, undefined, { signal });
  }
}

/** Runs qemu-img to its end and returns what it printed. */
export async function runQemuImg(args: readonly string[], signal: AbortSignal): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)('qemu-img', [...args], { signal, timeout: toolTimeoutMs });
    return stdout;
  } catch (cause) {
    signal.throwIfAborted();
    const said = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : '';
    throw new QemuToolFailed(said === '' ? missingTool('qemu-img', cause) : said.slice(0, messageCharsMax), { cause });
  }
}

function missingTool(tool: string, cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
  return code === 'ENOENT' ? `${tool} is not installed` : `${tool} could not be run (${code})`;
}
