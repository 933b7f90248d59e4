import { property, readObject } from '../vim25/properties.ts';
import { type Reference, referenceOf, textOf } from '../vim25/soap-xml.ts';
import type { VimSession } from '../vim25/vim-session.ts';
import { VsphereAnswerInvalid } from '../vsphere-errors.ts';

const levelsMax = 100;

/** The way from the root folder to the datacenter that the machine is in, as `/folder` wants it: `DC0`, `Europe/DC1`. */
export async function findDatacenter(session: VimSession, machine: Reference, signal: AbortSignal): Promise<string> {
  const names: string[] = [];
  let ref: Reference | null = machine;
  for (let level = 0; ref !== null && level < levelsMax; level++) {
    const object = await readObject(session, ref, ['parent', 'name'], signal);
    const parent: Reference | null = referenceOf(property(object, 'parent'));
    const isInside = ref.type === 'Datacenter' || names.length > 0;
    // The root folder has a name of its own that is part of no path.
    if (isInside && parent !== null) names.unshift(textOf(property(object, 'name')) ?? '');
    ref = parent;
  }
  if (names.length === 0) throw new VsphereAnswerInvalid(`${session.where} says of ${machine.id} no datacenter`);
  return names.join('/');
}
