/** The core of HashiCorp Vault with its transit engine, a process of its own on loopback. Everything in it is gone once it stops. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { peerFolder, peerNeeds, type ServerProcess, startServer } from './server-process.ts';

/** What the tests read of answers. */
export interface VaultAnswer {
  readonly data: Readonly<Record<string, string>> & { readonly keys: readonly string[] };
  readonly auth: { readonly client_token: string };
}

export interface VaultPeer extends AsyncDisposable {
  readonly address: string;
  readonly rootToken: string;
  readonly pid: number;
  /** One call of the API as root; returns the JSON of the answer. */
  ask(method: string, path: string, body?: object): Promise<VaultAnswer>;
  /** Makes a transit key and returns its name. */
  createKey(): Promise<string>;
  /** A token with this policy, in Vault's own language. */
  tokenFor(policy: string): Promise<string>;
  /** Kills the server at once, as a power cut would. */
  stop(): Promise<void>;
}

const readyTimeoutMs = 60_000;

export const vaultNeeds = () => peerNeeds('vault');

export async function startVault(): Promise<VaultPeer> {
  const server = await startServer({
    name: 'vault',
    command: (_, port) => [join(peerFolder('vault'), 'vault'), '-listen', `127.0.0.1:${port}`],
  });
  try {
    return await preparedAt(
      `http://127.0.0.1:${server.port}`,
      await readFile(join(server.folder, 'root-token'), 'utf8'),
      server,
    );
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function preparedAt(address: string, rootToken: string, { pid, stop }: ServerProcess): Promise<VaultPeer> {
  const ask = async (method: string, path: string, body?: object) => {
    const response = await fetch(`${address}/v1/${path}`, {
      method,
      headers: { 'x-vault-token': rootToken },
      ...(body && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: HTTP ${response.status} ${text}`);
    return text === '' ? {} : JSON.parse(text);
  };
  await whenReady(() => ask('GET', 'sys/mounts'));
  await ask('POST', 'sys/mounts/transit', { type: 'transit' });
  await ask('POST', 'sys/auth/approle', { type: 'approle' });
  let made = 0;
  return {
    address,
    rootToken,
    pid,
    ask,
    async createKey() {
      const name = `key-${++made}`;
      await ask('POST', `transit/keys/${name}`, { type: 'aes256-gcm96' });
      return name;
    },
    async tokenFor(policy) {
      const name = `policy-${++made}`;
      await ask('PUT', `sys/policies/acl/${name}`, { policy });
      const token = await ask('POST', 'auth/token/create', { policies: [name], no_default_policy: true });
      return token.auth.client_token;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** It listens a little before it has taken over as the active server. */
async function whenReady(ask: () => Promise<unknown>): Promise<void> {
  const until = performance.now() + readyTimeoutMs;
  for (;;) {
    const error = await ask().then(
      () => null,
      (reason: unknown) => reason,
    );
    if (error === null) return;
    if (performance.now() > until) throw error;
    await sleep(50);
  }
}
