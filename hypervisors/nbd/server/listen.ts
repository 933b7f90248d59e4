import { once } from 'node:events';
import { lstat, mkdir, rm, stat } from 'node:fs/promises';
import { connect, isIP, type Server } from 'node:net';
import { dirname } from 'node:path';

/** The place where clients should find the server can't be used. */
export class NbdListenFailed extends Error {
  readonly code = 'NBD_LISTEN_FAILED';
  override readonly name = 'NbdListenFailed';
}

/** Where clients find the server. */
export type NbdListenPlace =
  | { readonly kind: 'unix'; readonly path: string }
  /** Port 0: any that is free. */
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

const socketPathBytesMax = 107;
const ownerOnlyFolder = 0o700;
const othersMayWrite = 0o022;
const sticky = 0o1000;
/** A socket that its owner alone may connect to. */
const socketMask = 0o177;

/** Without TLS a TCP port is for this host only. Throws NbdListenFailed. */
export async function listen(server: Server, place: NbdListenPlace, tls: boolean): Promise<void> {
  if (place.kind === 'unix') return listenOnSocket(server, place.path);
  const { host, port } = place;
  if (!tls && !isLoopback(host))
    throw new NbdListenFailed(
      `${host} is not this host alone, and without TLS everybody on the network could read along: give a certificate, or listen on 127.0.0.1`,
    );
  await begin(server, `${host}:${port}`, () => server.listen({ host, port }));
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

async function listenOnSocket(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new NbdListenFailed(`${path}: a socket's path has at most ${socketPathBytesMax} bytes: use a shorter one`);
  await checkFolder(dirname(path));
  await removeStale(path);
  await begin(server, path, () => {
    // Node makes the socket before `listen` returns, and no other code runs in between.
    const before = process.umask(socketMask);
    try {
      server.listen({ path });
    } finally {
      process.umask(before);
    }
  });
}

/** Others who may write in the folder could put their own socket in the place of ours. */
async function checkFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: ownerOnlyFolder });
    const { mode, uid } = await stat(folder);
    const isOfOthers = uid !== 0 && uid !== process.getuid?.();
    if (isOfOthers || ((mode & othersMayWrite) !== 0 && (mode & sticky) === 0))
      throw new NbdListenFailed(`${folder}: others may write there: use a folder that is yours alone`);
  } catch (cause) {
    throw cause instanceof NbdListenFailed
      ? cause
      : new NbdListenFailed(`${folder}: can't be used (${codeOf(cause)})`, { cause });
  }
}

/** A server that was killed leaves its socket behind. One that lives is left alone, and so is every other file. */
async function removeStale(path: string): Promise<void> {
  const there = await lstat(path).catch(() => null);
  if (there === null) return;
  if (!there.isSocket()) throw new NbdListenFailed(`${path} exists and is no socket: name another`);
  const probe = connect({ path });
  const answered = await once(probe, 'connect').then(
    () => true,
    (error: unknown) => codeOf(error) !== 'ECONNREFUSED',
  );
  probe.destroy();
  if (answered) throw new NbdListenFailed(`${path}: somebody serves there already: name another socket`);
  try {
    await rm(path, { force: true });
  } catch (cause) {
    throw new NbdListenFailed(`${path}: what is left of another server can't be removed (${codeOf(cause)})`, { cause });
  }
}

async function begin(server: Server, where: string, start: () => void): Promise<void> {
  const listening = once(server, 'listening');
  try {
    start();
    await listening;
    // A refused `accept`, as by too many open files, must not end the process: that client tries again.
    server.on('error', () => undefined);
  } catch (cause) {
    throw new NbdListenFailed(`${where}: can't listen there (${codeOf(cause)}): choose another place`, { cause });
  }
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
}
