import type { Marks } from '../marks.ts';
import type { Virsh } from './virsh.ts';
import { attributeOf, childOf, childrenOf, parseXml } from './xml.ts';

/** libvirt's checkpoints: a dirty bitmap of one name in each disk, which records everything since the checkpoint was made. */

export interface Checkpoint {
  readonly name: string;
  /** How much was written since, by disk. A disk whose bitmap is missing or broken is not in it. */
  readonly dirtyBytes: ReadonlyMap<string, number>;
}

/** Those of ours, the oldest first. Nobody else's is ever touched. */
export async function listCheckpoints(
  virsh: Virsh,
  uuid: string,
  marks: Marks,
  signal: AbortSignal,
): Promise<readonly Checkpoint[]> {
  const names = await virsh.run(['checkpoint-list', '--domain', uuid, '--name'], signal);
  const ours = names
    .split('\n')
    .map((name) => name.trim())
    .filter(marks.isReferencePoint)
    .sort();
  const found: Checkpoint[] = [];
  for (const name of ours) found.push({ name, dirtyBytes: await dirtyBytesOf(virsh, uuid, name, signal) });
  return found;
}

/** libvirt asks QEMU for the size of each bitmap, and leaves out what is not there: no other question tells. */
async function dirtyBytesOf(virsh: Virsh, uuid: string, name: string, signal: AbortSignal) {
  const args = ['checkpoint-dumpxml', '--domain', uuid, '--checkpointname', name, '--no-domain', '--size'];
  const text = await virsh.ask(args, signal);
  const sizes = new Map<string, number>();
  if (text === null) return sizes;
  const root = parseXml(text, `checkpoint ${name}`, 'domaincheckpoint');
  for (const disk of childrenOf(childOf(root, 'disks'), 'disk')) {
    const [label, size] = [attributeOf(disk, 'name'), attributeOf(disk, 'size')];
    if (label !== null && size !== null) sizes.set(label, Number(size));
  }
  return sizes;
}

/** One whose bitmaps are gone is forgotten by libvirt, which is all that is left to remove. */
export async function removeCheckpoint(virsh: Virsh, uuid: string, name: string, signal: AbortSignal): Promise<void> {
  const args = ['checkpoint-delete', '--domain', uuid, '--checkpointname', name];
  if ((await virsh.ask(args, signal)) !== null) return;
  await virsh.ask([...args, '--metadata'], signal);
}
