import type { MachineState } from './machine-state.ts';
import { property, readObjects } from './vim25/properties.ts';
import { childOf, childText, roomOf } from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';
import { VsphereDatastoreFull, VsphereDenied } from './vsphere-errors.ts';
import type { VsphereSite } from './vsphere-site.ts';

/** Of a datastore that has no room left, and how much it has. */
export interface NarrowDatastore {
  readonly name: string;
  readonly freeBytes: number;
}

/** While a snapshot is there, all that guests write grows on a datastore; one that fills up stops every machine on it. */
export async function narrowDatastores(
  session: VimSession,
  { datastores }: Pick<MachineState, 'datastores'>,
  freeBytesMin: number,
  signal: AbortSignal,
): Promise<readonly NarrowDatastore[]> {
  const narrow: NarrowDatastore[] = [];
  try {
    for await (const store of readObjects(session, datastores, ['summary'], signal)) {
      const summary = property(store, 'summary');
      const freeBytes = roomOf(childOf(summary, 'freeSpace'));
      if (freeBytes !== null && freeBytes < freeBytesMin)
        narrow.push({ name: childText(summary, 'name') ?? store.ref.id, freeBytes });
    }
  } catch (error) {
    // An account that sees the machine need not see its datastores: then nobody can look.
    if (!(error instanceof VsphereDenied)) throw error;
  }
  return narrow;
}

/** Throws VsphereDatastoreFull. */
export async function requireRoom(site: VsphereSite, state: MachineState, signal: AbortSignal): Promise<void> {
  const { name, datastoreFreeBytesMin } = site.machine;
  const [first] = await narrowDatastores(site.session, state, datastoreFreeBytesMin, signal);
  if (first === undefined) return;
  throw new VsphereDatastoreFull(
    `machine ${name}: datastore ${first.name} has ${first.freeBytes} bytes left, and ${datastoreFreeBytesMin} are wanted before a snapshot is taken`,
  );
}
