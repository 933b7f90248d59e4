import { type Place, pathTo, refAt } from '../inventory.ts';
import { listed, type ManagedObject, property, readInventory, readObject } from '../vim25/properties.ts';
import { booleanOf, childOf, childText, type Reference, referenceOf, roomOf, textOf } from '../vim25/soap-xml.ts';
import type { VimSession } from '../vim25/vim-session.ts';
import { VspherePlaceInvalid } from '../vsphere-errors.ts';

/** Where a restored machine goes: names as an operator gives them, found before anything is restored. */

export interface PlaceNames {
  readonly datastore: string;
  /** `Datacenter/vm/folder`; null: the datacenter's own. */
  readonly folder: string | null;
  /** `cluster/Resources/pool`; null: the only one whose hosts have the datastore. */
  readonly pool: string | null;
  /** Null: the machine is connected to none. */
  readonly network: string | null;
}

export interface VspherePlace {
  readonly datacenter: Reference;
  /** From the root folder, as `/folder` wants it. */
  readonly datacenterPath: string;
  readonly folder: Reference;
  readonly pool: Reference;
  readonly datastore: { readonly ref: Reference; readonly name: string; readonly freeBytes: number };
  readonly network: NetworkPlace | null;
}

export type NetworkPlace =
  | { readonly kind: 'standard'; readonly name: string; readonly ref: Reference }
  | {
      readonly kind: 'distributed';
      readonly switchUuid: string;
      readonly portgroupKey: string;
      readonly ref: Reference;
    };

const placePaths = ['name', 'parent'];
const paths = {
  Datacenter: [...placePaths, 'vmFolder'],
  Folder: placePaths,
  StoragePod: placePaths,
  ComputeResource: [...placePaths, 'resourcePool', 'host'],
  ResourcePool: placePaths,
  Datastore: [...placePaths, 'summary'],
  Network: placePaths,
};
/** These keep objects, of which no flat file can be made. */
const objectStores = ['vsan', 'vsanD', 'VVOL', 'PMEM'];
const namesShownMax = 10;

/** Throws VspherePlaceInvalid, which says what there is instead. */
export async function findPlace(session: VimSession, names: PlaceNames, signal: AbortSignal): Promise<VspherePlace> {
  const inventory = new Inventory(session.where);
  for await (const object of readInventory(session, paths, signal)) inventory.add(object);
  const datastore = inventory.only('datastore', ['Datastore'], names.datastore, null);
  const datacenter = inventory.above(datastore, 'Datacenter');
  const folder =
    names.folder === null
      ? (refAt(datacenter, 'vmFolder') ?? datacenter.ref)
      : inventory.only('folder of machines', ['Folder'], names.folder, `${inventory.pathOf(datacenter)}/vm`).ref;
  return {
    datacenter: datacenter.ref,
    datacenterPath: inventory.pathOf(datacenter),
    folder,
    pool: await poolOf(session, inventory, names, { datastore, datacenter }, signal),
    datastore: usable(session.where, datastore),
    network: names.network === null ? null : await networkOf(session, inventory, names.network, datacenter, signal),
  };
}

class Inventory {
  readonly #where: string;
  readonly #objects: ManagedObject[] = [];
  readonly #places = new Map<string, Place>();

  constructor(where: string) {
    this.#where = where;
  }

  add(object: ManagedObject): void {
    this.#objects.push(object);
    this.#places.set(object.ref.id, {
      name: textOf(property(object, 'name')) ?? '',
      parent: refAt(object, 'parent'),
    });
  }

  pathOf({ ref }: ManagedObject): string {
    return pathTo(this.#places, ref);
  }

  ofType(...types: readonly string[]): readonly ManagedObject[] {
    return this.#objects.filter(({ ref }) => types.includes(ref.type));
  }

  /** By its path, or by its name where only one has it. `below`: the path that it must be at or below. */
  only(what: string, types: readonly string[], asked: string, below: string | null): ManagedObject {
    const wanted = asked.replace(/^\/+|\/+$/g, '');
    const all = this.ofType(...types).filter((each) => below === null || isAtOrBelow(this.pathOf(each), below));
    const byPath = all.filter((each) => this.pathOf(each) === wanted);
    const found = byPath.length > 0 ? byPath : all.filter((each) => this.pathOf(each).endsWith(`/${wanted}`));
    const [only] = found;
    if (only !== undefined && found.length === 1) return only;
    const shown = (found.length > 1 ? found : all).map((each) => this.pathOf(each)).sort();
    const list = shown.length === 0 ? 'there is none' : `there is ${shown.slice(0, namesShownMax).join(', ')}`;
    throw new VspherePlaceInvalid(
      `${this.#where} has ${found.length > 1 ? 'more than one' : 'no'} ${what} ${asked}: ${list}${shown.length > namesShownMax ? ', …' : ''}`,
    );
  }

  above(object: ManagedObject, type: string): ManagedObject {
    const path = this.pathOf(object);
    const found = this.ofType(type).filter((each) => isAtOrBelow(path, this.pathOf(each)));
    const [only] = found;
    if (only === undefined) throw new VspherePlaceInvalid(`${this.#where} shows no ${type} above ${path}`);
    return only;
  }
}

function isAtOrBelow(path: string, above: string): boolean {
  return path === above || path.startsWith(`${above}/`);
}

function usable(where: string, datastore: ManagedObject): VspherePlace['datastore'] {
  const summary = property(datastore, 'summary');
  const name = childText(summary, 'name') ?? '';
  const type = childText(summary, 'type') ?? 'unknown';
  const refuse = (why: string): VspherePlaceInvalid => new VspherePlaceInvalid(`${where}: datastore ${name} ${why}`);
  if (booleanOf(childOf(summary, 'accessible')) === false) throw refuse("can't be reached by any host");
  if (!['normal', null].includes(childText(summary, 'maintenanceMode'))) throw refuse('is in maintenance');
  if (objectStores.includes(type))
    throw refuse(
      `is of the kind ${type}, which takes no flat files: name one of VMFS or NFS, and move the machine later`,
    );
  return { ref: datastore.ref, name, freeBytes: roomOf(childOf(summary, 'freeSpace')) ?? 0 };
}

async function poolOf(
  session: VimSession,
  inventory: Inventory,
  { pool, datastore: asked }: PlaceNames,
  { datastore, datacenter }: { readonly datastore: ManagedObject; readonly datacenter: ManagedObject },
  signal: AbortSignal,
): Promise<Reference> {
  const below = inventory.pathOf(datacenter);
  if (pool !== null) return inventory.only('resource pool', ['ResourcePool', 'VirtualApp'], pool, below).ref;
  // Only of this one: every host that has it is in the list, and a large site has thousands of such pairs.
  const { properties } = await readObject(session, datastore.ref, ['host'], signal);
  const mounts = listed(properties.get('host') ?? null).map((mount) => referenceOf(childOf(mount, 'key'))?.id);
  const able = inventory
    .ofType('ComputeResource', 'ClusterComputeResource')
    .filter((each) => listed(property(each, 'host')).some((host) => mounts.includes(referenceOf(host)?.id)));
  const [only] = able;
  const root = only === undefined ? null : refAt(only, 'resourcePool');
  if (root !== null && able.length === 1) return root;
  const choices = able.map((each) => `${inventory.pathOf(each).replace(/^.*?\/host\//, '')}/Resources`).sort();
  throw new VspherePlaceInvalid(
    `datastore ${asked} is at ${able.length} clusters and hosts: say --pool ${choices[0] ?? 'CLUSTER/Resources'}${choices.length > 1 ? `, or one of ${choices.slice(1, namesShownMax).join(', ')}` : ''}`,
  );
}

async function networkOf(
  session: VimSession,
  inventory: Inventory,
  asked: string,
  datacenter: ManagedObject,
  signal: AbortSignal,
): Promise<NetworkPlace> {
  const types = ['Network', 'DistributedVirtualPortgroup', 'OpaqueNetwork'];
  const { ref, properties } = inventory.only('network', types, asked, inventory.pathOf(datacenter));
  if (ref.type === 'Network') return { kind: 'standard', name: textOf(properties.get('name') ?? null) ?? asked, ref };
  if (ref.type === 'OpaqueNetwork')
    throw new VspherePlaceInvalid(`network ${asked} is not vSphere's own: leave out --network, and connect by hand`);
  const group = await readObject(session, ref, ['key', 'config.distributedVirtualSwitch'], signal);
  const virtualSwitch = referenceOf(property(group, 'config.distributedVirtualSwitch'));
  const uuid =
    virtualSwitch === null ? null : property(await readObject(session, virtualSwitch, ['uuid'], signal), 'uuid');
  const [portgroupKey, switchUuid] = [textOf(property(group, 'key')), textOf(uuid)];
  if (portgroupKey === null || switchUuid === null)
    throw new VspherePlaceInvalid(`${session.where} does not tell which switch network ${asked} is of`);
  return { kind: 'distributed', switchUuid, portgroupKey, ref };
}
