import { type MachineState, machinePaths, machineState } from './machine-state.ts';
import { type ManagedObject, property, readInventory } from './vim25/properties.ts';
import { type Reference, referenceOf, textOf } from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';

/** All machines of a server, with the places that an operator chooses by. Tags are not in this API. */

export interface InventoryEntry {
  readonly machine: MachineState;
  /** `Datacenter/vm/folder/name`, as `source.path` takes it. */
  readonly path: string;
  /** `cluster/Resources/pool`; null for a template, which is in none. */
  readonly pool: string | null;
}

const placePaths = ['name', 'parent'];
const placesByType = {
  Datacenter: placePaths,
  Folder: placePaths,
  ComputeResource: placePaths,
  ResourcePool: placePaths,
};
const stepsMax = 64;

/** In the order of their paths. */
export async function listInventory(session: VimSession, signal: AbortSignal): Promise<readonly InventoryEntry[]> {
  const places = new Map<string, Place>();
  const machines: { readonly machine: MachineState; readonly pool: Reference | null }[] = [];
  for await (const object of readInventory(session, { ...placesByType, VirtualMachine: machinePaths }, signal)) {
    const name = textOf(property(object, 'name')) ?? '';
    places.set(object.ref.id, apart({ name, parent: refAt(object, 'parent') }));
    if (object.ref.type === 'VirtualMachine')
      machines.push(apart({ machine: machineState(object), pool: refAt(object, 'resourcePool') }));
  }
  const entries = machines.map(({ machine, pool }) => ({
    machine,
    path: pathTo(places, machine.ref),
    pool: pool === null ? null : pathTo(places, pool).replace(/^.*?\/host\//, ''),
  }));
  return entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** What was cut out of an answer keeps all of it in memory, and a vCenter with thousands of machines has gigabytes of them. */
function apart<T>(value: T): T {
  return structuredClone(value);
}

export interface Place {
  readonly name: string;
  readonly parent: Reference | null;
}

/** `Datacenter/vm/folder/name`: without the root folder, which this API's own paths leave out, too. */
export function pathTo(places: ReadonlyMap<string, Place>, ref: Reference): string {
  const names: string[] = [];
  let at = places.get(ref.id);
  for (let step = 0; at !== undefined && step < stepsMax; step++) {
    names.unshift(at.name);
    at = at.parent === null ? undefined : places.get(at.parent.id);
  }
  return names.join('/');
}

export function refAt(object: ManagedObject, path: string): Reference | null {
  return referenceOf(property(object, path));
}
