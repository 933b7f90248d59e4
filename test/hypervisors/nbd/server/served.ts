import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NbdExportHandler } from '../../../../hypervisors/nbd/server/nbd-export-handler.ts';
import { NbdServer, type NbdServerOptions } from '../../../../hypervisors/nbd/server/nbd-server.ts';

export interface Served extends AsyncDisposable {
  readonly server: NbdServer;
  readonly socket: string;
  uri(exportName?: string): string;
  /** What happened, in the order in which it did. */
  readonly events: string[];
}

/** A server of ours on a unix socket in a folder of its own. */
export async function serve(
  exports: readonly NbdExportHandler[],
  options: Partial<Omit<NbdServerOptions, 'exports' | 'place'>> = {},
): Promise<Served> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-serve-'));
  const socket = join(folder, 'private', 's');
  const events: string[] = [];
  const server = await NbdServer.listen({
    place: { kind: 'unix', path: socket },
    exports,
    defaultExport: exports.length === 1 ? (exports[0]?.name ?? null) : null,
    tls: null,
    events: {
      connected: () => events.push('connected'),
      disconnected: (_client, error) => events.push(`disconnected: ${error === null ? 'goodbye' : String(error)}`),
      requestFailed: (_client, request, error) => events.push(`failed: ${request}: ${String(error)}`),
    },
    ...options,
  }).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true });
    throw error;
  });
  return {
    server,
    socket,
    events,
    uri: (name = '') => `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`,
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
