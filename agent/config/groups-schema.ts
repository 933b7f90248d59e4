import * as z from 'zod';
import { text } from './fields.ts';
import { nearestKey } from './nearest-key.ts';
import { retention } from './retention-schema.ts';

/** Groups of machines that have a retention in common. */

export function groups() {
  return z
    .array(
      z.strictObject({
        name: text(100).describe('What failkit prune --group takes.'),
        machines: z.array(text(200)).min(1).max(5000).describe('Names of machines of this configuration.'),
        retention: retention().describe('Of machines of this group that have none of their own.'),
      }),
    )
    .max(1000)
    .prefault([]);
}

interface Grouping {
  readonly groups: readonly { readonly name: string; readonly machines: readonly string[] }[];
  readonly machines: readonly { readonly name: string }[];
}

/** A name that is none, and whatever leaves it open which retention a machine has. */
export function refuseWrongGroups(config: Grouping, context: z.RefinementCtx): void {
  const known = config.machines.map(({ name }) => name);
  const groupOf = new Map<string, string>();
  const refuse = (message: string, ...path: (string | number)[]) =>
    context.addIssue({ code: 'custom', path: ['groups', ...path], message });
  for (const [index, { name, machines }] of config.groups.entries()) {
    if (config.groups.findIndex((each) => each.name === name) < index) {
      refuse(`is the name of another group: ${name}`, index, 'name');
      continue;
    }
    for (const [at, machine] of machines.entries()) {
      const other = groupOf.get(machine);
      if (other !== undefined) refuse(`${machine} is in group ${other}: a machine is in one`, index, 'machines', at);
      if (!known.includes(machine))
        refuse(`there is no machine ${machine}${meant(machine, known)}`, index, 'machines', at);
      groupOf.set(machine, name);
    }
  }
}

function meant(name: string, known: readonly string[]): string {
  const nearest = nearestKey(name, known);
  return nearest === null ? '' : `: did you mean ${nearest}?`;
}
