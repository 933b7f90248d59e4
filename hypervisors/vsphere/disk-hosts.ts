import { connect } from 'node:net';
import type { MachineState } from './machine-state.ts';
import { listed, property, readObjects } from './vim25/properties.ts';
import { booleanOf, childOf, type Reference, referenceOf, textOf } from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';

/** vSphere lets any host that has the datastore serve a snapshot's disk, so that each must be reachable. */

/** What VDDK reads disks by, and what it is told about the host by. */
const hostPorts = [902, 443] as const;
const connectTimeoutMs = 5_000;
const hostsAtOnce = 16;

/** Their names, as vSphere has them. */
export async function hostsOfDisks(
  session: VimSession,
  { datastores, host }: MachineState,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const hosts = new Map<string, Reference>(host === null ? [] : [[host.id, host]]);
  for await (const store of readObjects(session, datastores, ['host'], signal))
    for (const mount of listed(property(store, 'host'))) {
      const ref = referenceOf(childOf(mount, 'key'));
      if (ref !== null && booleanOf(childOf(mount, 'mountInfo', 'accessible')) !== false) hosts.set(ref.id, ref);
    }
  const names: string[] = [];
  for await (const object of readObjects(session, [...hosts.values()], ['name', 'runtime.connectionState'], signal)) {
    const name = textOf(property(object, 'name'));
    if (name !== null && textOf(property(object, 'runtime.connectionState')) !== 'disconnected') names.push(name);
  }
  return names.sort();
}

export interface ClosedPort {
  readonly host: string;
  readonly port: number;
  /** The system's code, as `ECONNREFUSED` or `ENOTFOUND`; `timeout`. */
  readonly why: string;
}

export async function closedPorts(
  hosts: readonly string[],
  signal: AbortSignal,
  ports: readonly number[] = hostPorts,
): Promise<readonly ClosedPort[]> {
  const asked = hosts.flatMap((host) => ports.map((port) => ({ host, port })));
  const closed: ClosedPort[] = [];
  for (let i = 0; i < asked.length; i += hostsAtOnce) {
    signal.throwIfAborted();
    const batch = asked.slice(i, i + hostsAtOnce);
    const reasons = await Promise.all(batch.map(({ host, port }) => whyClosed(host, port)));
    for (const [j, why] of reasons.entries()) {
      const at = batch[j];
      if (at !== undefined && why !== null) closed.push({ ...at, why });
    }
  }
  return closed;
}

function whyClosed(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: connectTimeoutMs });
    const end = (why: string | null): void => {
      socket.destroy();
      resolve(why);
    };
    socket.once('connect', () => end(null));
    socket.once('timeout', () => end('timeout'));
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'failed'));
  });
}
