import type { Element } from '@xmldom/xmldom';
import { beside, folderPath, nameOf, parseDatastoreFile } from './datastore/datastore-file.ts';
import { findDatacenter } from './datastore/find-datacenter.ts';
import { FolderClient } from './datastore/folder-client.ts';
import { isEncrypted, settingOf } from './machine-disks.ts';
import { childrenOf, childText } from './vim25/soap-xml.ts';
import type { VsphereSite } from './vsphere-site.ts';

/** UEFI variables, or what a BIOS remembers: a small file beside the machine's own, which the API has no other way to. */

export type CapturedNvram =
  | { readonly file: string; readonly bytes: Uint8Array }
  /** Why there is none: a run does without it. */
  | { readonly file: string | null; readonly missing: string };

/** Hosts write 270 KiB of it at most. */
const nvramBytesMax = 2 * 1024 * 1024;

/** `config`: of the snapshot. The file is read now: guests change their variables rarely, and no snapshot holds it. */
export async function captureNvram(
  { session, machine, ref }: VsphereSite,
  config: Element,
  signal: AbortSignal,
): Promise<CapturedNvram> {
  const machineFile = parseDatastoreFile(childText(config, 'files', 'vmPathName') ?? '');
  if (machineFile === null) return { file: null, missing: 'vSphere does not say where the machine is' };
  const name =
    settingOf(childrenOf(config, 'extraConfig'), 'nvram') ||
    machineFile.path.replace(/^.*\//, '').replace(/(\.vmx)?$/, '.nvram');
  const file = beside(machineFile, name);
  if (/[/\\]/.test(name)) return { file: name, missing: 'it lies elsewhere than the machine' };
  // Of such a machine vSphere encrypts this file, too, whatever its disks are.
  if (isEncrypted(config))
    return { file: nameOf(file), missing: 'vSphere encrypts it, with keys that it gives to nobody' };
  using client = new FolderClient(session, machine.server);
  try {
    const path = folderPath(file, await findDatacenter(session, ref, signal));
    const bytes = await client.find(path, nameOf(file), nvramBytesMax, signal);
    if (bytes !== null && bytes.length > 0) return { file: nameOf(file), bytes };
    return { file: nameOf(file), missing: 'the machine has none yet: a host writes it at the first start' };
  } catch (error) {
    signal.throwIfAborted();
    return { file: nameOf(file), missing: error instanceof Error ? error.message : String(error) };
  }
}
