/** A file of a datastore, as vSphere names it: `[datastore] folder/name.vmdk`. */
export interface DatastoreFile {
  readonly datastore: string;
  /** Within it. */
  readonly path: string;
}

/** Null for what is no such name. */
export function parseDatastoreFile(name: string): DatastoreFile | null {
  const [, datastore, path] = /^\[([^\]]+)\] (.+)$/.exec(name) ?? [];
  return datastore === undefined || path === undefined ? null : { datastore, path };
}

/** Another file of the same folder. */
export function beside({ datastore, path }: DatastoreFile, name: string): DatastoreFile {
  return { datastore, path: `${path.slice(0, path.lastIndexOf('/') + 1)}${name}` };
}

/** Where a vCenter or host hands it out; `datacenter`: the way to it from the root folder, as `DC0` or `Europe/DC1`. */
export function folderPath({ datastore, path }: DatastoreFile, datacenter: string): string {
  const segments = path.split('/').map(encodeURIComponent).join('/');
  return `/folder/${segments}?dcPath=${encodeURIComponent(datacenter)}&dsName=${encodeURIComponent(datastore)}`;
}

export function nameOf({ datastore, path }: DatastoreFile): string {
  return `[${datastore}] ${path}`;
}
