import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client, SFTPWrapper } from 'ssh2';
import { HypervUnreachable, HypervUntrusted } from './hyperv-errors.ts';
import type { HypervHost, OpenHypervHost } from './hyperv-machine.ts';
import { settled } from './settled.ts';
import { openSftpFile, type SftpHost } from './sftp-file.ts';
import type { WorkerStreams } from './worker-client.ts';

/** A Hyper-V host that is reached by SSH: the worker runs there, and disks are read by SFTP. */

const connectTimeoutMs = 30_000;
const aliveEveryMs = 20_000;

export interface SshAddress {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly privateKey: { reveal(): string };
  /** `SHA256:…` of the host's key, as ssh-keygen -l shows it: no other one is spoken to. */
  readonly hostKey: string;
}

export function sshHost(name: string, address: SshAddress): HypervHost {
  return { name, open: (signal) => openHost(name, address, signal) };
}

async function openHost(name: string, address: SshAddress, signal: AbortSignal): Promise<OpenHypervHost> {
  const where = `Hyper-V host ${name} at ${address.host}:${address.port}`;
  const client = await connect(where, address, signal);
  // ssh2 calls nobody back for what is asked after the end.
  const ending = new AbortController();
  const { signal: gone } = ending;
  client.on('close', () => ending.abort(new HypervUnreachable(`${where}: the connection broke`)));
  try {
    const sftp = await settled<SFTPWrapper>((done) => client.sftp(done), gone);
    const host = { sftp, where, gone };
    return {
      startWorker: () => startLaidDown(client, host),
      openFile: (path, either) => openSftpFile(host, path, either),
      isLost: () => gone.aborted,
      async [Symbol.asyncDispose]() {
        client.end();
      },
    };
  } catch (cause) {
    client.end();
    throw new HypervUnreachable(`${where}: it has no SFTP: let its SSH server offer the subsystem`, { cause });
  }
}

async function connect(where: string, address: SshAddress, signal: AbortSignal): Promise<Client> {
  signal.throwIfAborted();
  // Only where a host is reached so; it is not in the build.
  const { default: ssh2 } = await import('ssh2');
  const client = new ssh2.Client();
  let shown: string | null = null;
  const ready = Promise.withResolvers<void>();
  const abort = (): void => ready.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  client.on('ready', ready.resolve);
  // It stays: what breaks later is heard of by whoever reads or asks.
  client.on('error', ready.reject);
  client.on('close', () => ready.reject(new Error('the connection was closed')));
  try {
    client.connect({
      ...{ host: address.host, port: address.port, username: address.user },
      ...{ privateKey: address.privateKey.reveal(), readyTimeout: connectTimeoutMs, keepaliveInterval: aliveEveryMs },
      hostVerifier: (key: Buffer) => {
        shown = `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
        return shown === address.hostKey;
      },
    });
    await ready.promise;
    // Questions are short, and each read would wait 40 ms for the last one's acknowledgement.
    client.setNoDelay(true);
    return client;
  } catch (cause) {
    client.end();
    signal.throwIfAborted();
    if (shown !== null && shown !== address.hostKey)
      throw new HypervUntrusted(`${where} shows the key ${shown}, and hostKey is ${address.hostKey}`, { cause });
    throw new HypervUnreachable(
      `${where} does not let us in: check address, user and key, and that OpenSSH runs there`,
      {
        cause,
      },
    );
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

async function startLaidDown(client: Client, host: SftpHost): Promise<WorkerStreams> {
  try {
    return await startWorker(client, await layDown(host), host.gone);
  } catch (cause) {
    if (cause instanceof HypervUnreachable) throw cause;
    throw new HypervUnreachable(
      `${host.where}: the worker can't be started: the account's home must be writable, and commands allowed`,
      { cause },
    );
  }
}

/** In the home of the account, where nobody else may write. Its name is that of its content. */
async function layDown({ sftp, gone }: SftpHost): Promise<string> {
  const script = await readFile(join(import.meta.dirname, 'hyperv-worker.ps1'));
  const name = `failkit-hyperv-worker-${createHash('sha256').update(script).digest('hex').slice(0, 16)}.ps1`;
  await settled<void>((done) => sftp.writeFile(name, script, { mode: 0o600 }, done), gone);
  return name;
}

/** The command is made of constants and a name of hexadecimal digits, whatever shell takes it. */
async function startWorker(client: Client, script: string, gone: AbortSignal): Promise<WorkerStreams> {
  const command = `powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -File ${script}`;
  type Channel = Parameters<Parameters<Client['exec']>[1]>[1];
  const channel = await settled<Channel>((done) => client.exec(command, done), gone);
  return {
    ...{ input: channel, output: channel, complaints: channel.stderr },
    kill() {
      channel.signal('KILL');
      channel.destroy();
    },
  };
}
