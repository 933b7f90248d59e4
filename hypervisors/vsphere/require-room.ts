import type { MachineState } from './machine-state.ts';
import { property, readObjects } from './vim25/properties.ts';
import { childOf, childText, integerOf } from './vim25/soap-xml.ts';
import { VsphereDatastoreFull } from './vsphere-errors.ts';
import type { VsphereSite } from './vsphere-site.ts';

/** Of a datastore that has no room left, and how much it has. */
export interface NarrowDatastore {
  readonly name: string;
  readonly freeBytes: number;
}

/** While a snapshot is there, all that guests write grows on a datastore; one that fills up stops every machine on it. */
export async function narrowDatastores(
  { session, machine }: VsphereSite,
  { datastores }: MachineState,
  signal: AbortSignal,
): Promise<readonly NarrowDatastore[]> {
  const narrow: NarrowDatastore[] = [];
  for await (const store of readObjects(session, datastores, ['summary'], signal)) {
    const summary = property(store, 'summary');
    const freeBytes = integerOf(childOf(summary, 'freeSpace'));
    if (freeBytes !== null && freeBytes < machine.datastoreFreeBytesMin)
      narrow.push({ name: childText(summary, 'name') ?? store.ref.id, freeBytes });
  }
  return narrow;
}

/** Throws VsphereDatastoreFull. */
export async function requireRoom(site: VsphereSite, state: MachineState, signal: AbortSignal): Promise<void> {
  const [first] = await narrowDatastores(site, state, signal);
  if (first === undefined) return;
  const { name, datastoreFreeBytesMin } = site.machine;
  throw new VsphereDatastoreFull(
    `machine ${name}: datastore ${first.name} has ${first.freeBytes} bytes left, and ${datastoreFreeBytesMin} are wanted before a snapshot is taken`,
  );
}
