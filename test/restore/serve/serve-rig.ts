import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { baseAllocation, NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { PointServer } from '../../../restore/serve/serve-point.ts';
import type { StorageTarget } from '../../../storage-targets/storage-target.ts';
import type { ReplicaRig } from '../../rig/replica-rig.ts';

const never = new AbortController().signal;
const mebibyte = 2 ** 20;

export interface ServedRig extends AsyncDisposable {
  readonly server: PointServer;
  readonly socket: string;
  /** Of the export with that name. */
  uri(label: string): string;
  open(label: string): Promise<NbdDisk>;
  /** `LABEL FIRST..LAST: message`, each place once. */
  readonly damage: string[];
}

/** A point of a rig's machine, served on a socket of its own. */
export async function servePointOf(
  rig: ReplicaRig,
  point: number,
  options: { readonly cacheBytes?: number; readonly target?: StorageTarget } = {},
): Promise<ServedRig> {
  await using opening = new AsyncDisposableStack();
  const reader = opening.use(await rig.open([rig.provider], options.target ?? rig.target));
  const { manifest } = await reader.replica.openPoint(point, never);
  const folder = await mkdtemp(join(tmpdir(), 'failkit-serve-rig-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const socket = join(folder, 's');
  const damage: string[] = [];
  const tools = { reader: reader.segments, workers: rig.workers.restore, rangesInFlightMax: 4 };
  const server = opening.use(
    await PointServer.open(
      { ...tools, cacheBytes: options.cacheBytes ?? 64 * mebibyte },
      {
        disks: manifest.disks,
        description: 'a test',
        place: { kind: 'unix', path: socket },
        tls: null,
        defaultDisk: null,
        events: {
          damaged: (label, { first, count }, error) =>
            damage.push(`${label} ${first}..${first + count - 1}: ${error.message}`),
        },
      },
    ),
  );
  const uri = (label: string) => `nbd+unix:///${encodeURIComponent(label)}?socket=${socket}`;
  const open = (label: string) =>
    NbdDisk.open(parseNbdUri(uri(label)), { contextsIfOffered: [baseAllocation], connectionsMax: 2 }, never);
  const held = opening.move();
  return { server, socket, uri, open, damage, [Symbol.asyncDispose]: () => held.disposeAsync() };
}
