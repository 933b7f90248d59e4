import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { getCACertificates } from 'node:tls';

import { TlsUntrusted } from './errors.ts';

/** How the servers of a cloud are reached; the same for its store and for whoever gives out its credentials. */
export interface ConnectionOptions {
  /** PEM file of a private certificate authority, trusted besides the system's. */
  readonly caFile?: string;
  /** `http://[user:password@]host:port` of a CONNECT proxy; TLS goes through it end to end. */
  readonly proxy?: string;
  /** Requests that can be under way at once; at least the in-flight limit around this target. */
  readonly socketsMax?: number;
}

export interface HttpAgents {
  readonly httpAgent: HttpAgent;
  readonly httpsAgent: HttpsAgent;
}

export const connectTimeoutMs = 10_000;
/** No byte in either direction for so long ends a request; a slow upload that moves goes on. */
export const silenceTimeoutMs = 60_000;
const socketsMaxDefault = 64;

/** Agents of our own: an SDK then neither makes one per request nor changes their settings. */
export async function httpAgents(options: ConnectionOptions): Promise<HttpAgents> {
  const settings = {
    keepAlive: true,
    maxSockets: options.socketsMax ?? socketsMaxDefault,
    scheduling: 'lifo' as const,
    ...(options.caFile === undefined ? {} : { ca: await trusted(options.caFile) }),
    ...(options.proxy === undefined ? {} : { proxyEnv: { HTTP_PROXY: options.proxy, HTTPS_PROXY: options.proxy } }),
  };
  return { httpAgent: new HttpAgent(settings), httpsAgent: new HttpsAgent(settings) };
}

export function closeAgents({ httpAgent, httpsAgent }: HttpAgents): void {
  httpAgent.destroy();
  httpsAgent.destroy();
}

async function trusted(caFile: string): Promise<string[]> {
  try {
    return [...getCACertificates('default'), await readFile(caFile, 'utf8')];
  } catch (error) {
    throw new TlsUntrusted(`the CA file ${caFile} cannot be read: correct its path or its permissions`, {
      cause: error,
    });
  }
}
