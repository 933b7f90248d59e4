/** A real CONNECT proxy, a process of its own on loopback. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { canaries } from '../canary.ts';
import { peerFolder, peerNeeds, startServer } from './server-process.ts';

export interface ConnectProxy extends AsyncDisposable {
  /** With user and password. */
  readonly url: string;
  readonly urlWithWrongPassword: string;
  /** What it has logged, one line for each tunnel that ended. */
  log(): Promise<string>;
  stop(): Promise<void>;
}

export const connectProxyNeeds = () => peerNeeds('proxy-py');

export async function startConnectProxy(): Promise<ConnectProxy> {
  const { password } = canaries();
  const server = await startServer({
    name: 'proxy-py',
    command: (_, port) => [
      ...[join(peerFolder('proxy-py'), 'venv/bin/python'), '-m', 'proxy', '--hostname', '127.0.0.1'],
      ...['--port', String(port), '--num-workers', '1', '--num-acceptors', '1', '--basic-auth', `site:${password}`],
    ],
  });
  return {
    url: `http://site:${password}@127.0.0.1:${server.port}`,
    urlWithWrongPassword: `http://site:wrong@127.0.0.1:${server.port}`,
    log: () => readFile(join(server.folder, 'log'), 'utf8'),
    stop: server.stop,
    [Symbol.asyncDispose]: server.stop,
  };
}
