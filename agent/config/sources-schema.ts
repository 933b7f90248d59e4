import * as z from 'zod';
import { hypervHost } from './hyperv-schema.ts';
import type { References } from './references.ts';
import { vsphereServer } from './vsphere-schema.ts';

/** Servers and hosts are named once, under `sources`; machines refer to them. */
export function sources(references: References) {
  return z
    .array(z.discriminatedUnion('type', [vsphereServer(references), hypervHost(references)]))
    .max(100)
    .superRefine((list, context) => {
      const names = list.map(({ name }) => name);
      for (const [index, name] of names.entries())
        if (names.indexOf(name) < index)
          context.addIssue({
            code: 'custom',
            path: [index, 'name'],
            message: `is the name of another source: ${name}`,
          });
    })
    .prefault([]);
}

interface Referring {
  readonly sources: readonly { name: string; type: string }[];
  readonly machines: readonly { source: { type: string; from?: string } }[];
}

export function refuseUnknownSources(config: Referring, context: z.RefinementCtx): void {
  for (const [index, { source }] of config.machines.entries()) {
    if (source.from === undefined) continue;
    const ofItsType = config.sources.filter(({ type }) => type === source.type).map(({ name }) => name);
    if (ofItsType.includes(source.from)) continue;
    const message = `names no source of type ${source.type} that there is under sources: there is ${ofItsType.join(', ') || 'none'}`;
    context.addIssue({ code: 'custom', path: ['machines', index, 'source', 'from'], message });
  }
}
