import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { SourceNotFound } from '../../errors.ts';
import type { Attachment } from '../../hypervisor.ts';
import { readAttachment } from '../../image/read-attachments.ts';
import type { LibvirtSite } from './libvirt-site.ts';

/** What besides its disks makes a machine: its definition, the UEFI variables, and the state of its software TPM. */

export const definitionName = 'domain.xml';
export const nvramName = 'uefi-variables.fd';
const tpmPrefix = 'tpm-';
/** Where libvirt keeps it for machines of the system. */
const tpmFolder = '/var/lib/libvirt/swtpm';
const attachmentBytesMax = 16 * 1024 * 1024;
const attachmentName = /^[A-Za-z0-9._-]{1,100}$/;

/**
 * Passwords are not in the definition, for libvirt tells those only when it is asked to; secrets it names by their UUID. What of the
 * rest can't be read from here is left out.
 */
export async function captureDefinition(
  { virsh, machine, domain, place }: LibvirtSite,
  signal: AbortSignal,
): Promise<readonly Attachment[]> {
  const isLocal = place.kind === 'here';
  const xml = await virsh.run(['dumpxml', '--domain', domain.uuid, '--migratable'], signal);
  const attachments = [{ name: definitionName, bytes: new TextEncoder().encode(xml) }];
  if (isLocal && domain.nvram !== null) attachments.push(...(await readIfThere(domain.nvram, nvramName)));
  if (isLocal && domain.hasTpm) attachments.push(...(await readTpm(domain.uuid)));
  for (const path of machine.attachments) {
    const { attachment } = await readAttachment(machine.name, path, signal);
    if (attachments.some(({ name }) => name === attachment.name))
      throw new SourceNotFound(
        `attachment of machine ${machine.name}: ${path} has a name that this agent uses itself: rename or link it`,
      );
    attachments.push({ name: attachment.name, bytes: new Uint8Array(attachment.bytes) });
  }
  return attachments;
}

export async function isReadable(path: string): Promise<boolean> {
  return (await readIfThere(path, basename(path))).length > 0;
}

async function readTpm(uuid: string) {
  const found = [];
  for (const version of ['tpm1.2', 'tpm2']) {
    const folder = join(tpmFolder, uuid, version);
    const names = await readdir(folder).catch(() => []);
    for (const name of names.filter((each) => !each.startsWith('.') && attachmentName.test(each)))
      found.push(...(await readIfThere(join(folder, name), `${tpmPrefix}${version}-${name}`)));
  }
  return found;
}

async function readIfThere(path: string, name: string) {
  const bytes = await readFile(path).catch(() => null);
  return bytes === null || bytes.length > attachmentBytesMax ? [] : [{ name, bytes: new Uint8Array(bytes) }];
}
