import { join } from 'node:path';
import type { BackingDisk, DrillDisk, DrillFinding } from '../../drill/drill.ts';
import { NbdDisk } from '../../hypervisors/nbd/nbd-disk.ts';
import { formatNbdUri, parseNbdUri } from '../../hypervisors/nbd/nbd-uri.ts';
import { isDamage } from '../../replica/damage.ts';
import { toHex } from '../../replica/encoding.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { PointServer, type ServeTools } from '../../restore/serve/serve-point.ts';

const findingsMax = 20;

/**
 * A disk of a recovery point for a drill, served: the machine boots at once, and only what it reads is fetched. Such an
 * export has nothing that could be written to.
 */
export function servedDisk(
  disk: DiskState,
  tools: Omit<ServeTools, 'cacheBytes'>,
  cache: { readonly bytesOfOne: number },
): DrillDisk {
  return {
    label: disk.label,
    capacityBytes: disk.capacityBytes,
    open: (folder) => openServed(disk, { ...tools, cacheBytes: cache.bytesOfOne }, folder),
  };
}

async function openServed(disk: DiskState, tools: ServeTools, folder: string): Promise<BackingDisk> {
  const place = { kind: 'unix', path: join(folder, `nbd-${toHex(disk.diskId).slice(0, 8)}`) } as const;
  const uri = formatNbdUri({ transport: place, exportName: '', tls: false });
  const findings: DrillFinding[] = [];
  const add = (code: DrillFinding['code'], what: string): void => {
    if (findings.length < findingsMax) findings.push({ code, what: `disk ${disk.label}: ${what}` });
  };
  const server = await PointServer.open(tools, {
    ...{ disks: [disk], description: 'drill', place, tls: null, defaultDisk: disk.label },
    events: {
      damaged: (_label, { first, count }, error) =>
        add('POINT_DAMAGED', `blocks ${first} to ${first + count - 1} are damaged: ${error.message}`),
      requestFailed(_client, request, error) {
        const cause = error instanceof Error ? error.cause : null;
        if (cause instanceof Error && isDamage(cause)) return;
        add('STORE_FAILED', `a ${request} failed: ${error instanceof Error ? error.message : String(error)}`);
      },
    },
  });
  return {
    place: uri,
    get fetchedBytes() {
      return server.served.fetchedBytes;
    },
    async read(offset, into, signal) {
      await using reading = await NbdDisk.open(parseNbdUri(uri), {}, signal);
      await reading.read(offset, into, signal);
    },
    findings: async () => findings,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
