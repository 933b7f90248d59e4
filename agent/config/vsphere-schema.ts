import * as z from 'zod';
import { path, proxyAddress, secret, text, textOrReference } from './fields.ts';
import type { References } from './references.ts';

/** vCenters and hosts are named once, under `sources`; machines refer to them. */

const portDefault = 443;

export function sources(references: References) {
  return z
    .array(vsphereServer(references))
    .max(100)
    .superRefine((list, context) => {
      const names = list.map(({ name }) => name);
      for (const [index, name] of names.entries())
        if (names.indexOf(name) < index)
          context.addIssue({ code: 'custom', path: [index, 'name'], message: `is the name of another source: ${name}` });
    })
    .prefault([]);
}

function vsphereServer(references: References) {
  return z
    .strictObject({
      name: text(100).describe('What machines refer to by source.from.'),
      type: z.literal('vsphere'),
      server: text(300)
        .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$/, 'must be host or host:port, without https://')
        .describe('Host name of the vCenter, or of a stand-alone ESXi host; with :port where it is not 443.'),
      user: textOrReference(references),
      password: secret(references),
      thumbprint: z
        .string()
        .regex(/^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$/, 'must be a SHA-256 thumbprint: 64 hex digits, colons allowed')
        .transform((typed) => typed.replaceAll(':', '').toLowerCase())
        .nullable()
        .default(null)
        .describe('SHA-256 of the server\'s certificate: then no other one is trusted.'),
      caFile: path(references)
        .nullable()
        .default(null)
        .describe('PEM file of the authority that signed its certificate. Empty: those of the system.'),
      proxy: proxyAddress(references).nullable().default(null).describe('Address of an HTTP proxy.'),
    })
    .refine(({ thumbprint, caFile }) => thumbprint === null || caFile === null, {
      path: ['caFile'],
      error: 'is there besides a thumbprint: give one of the two',
    })
    .transform(({ server, ...rest }) => ({ ...rest, address: addressOf(server) }));
}

function addressOf(server: string): { host: string; port: number } {
  const [, host = '', port] = /^(\[.*\]|[^:]*)(?::(\d+))?$/.exec(server) ?? [];
  return { host: host.replace(/^\[|\]$/g, ''), port: port === undefined ? portDefault : Number(port) };
}

export function vsphereSource() {
  return z
    .strictObject({
      type: z.literal('vsphere'),
      from: text(100).describe('The name of a source of type vsphere.'),
      instanceUuid: text(36)
        .regex(/^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/, 'must be a UUID: failkit machines shows it')
        .transform((typed) => typed.toLowerCase())
        .optional()
        .describe('Finds the machine whatever it is called and wherever it is: failkit machines shows it.'),
      path: text(2000).optional().describe('Instead of instanceUuid: datacenter/vm/folder/name.'),
      exclude: z
        .array(text(100))
        .max(256)
        .prefault([])
        .describe('Disks that are left out, by label: points are partial.'),
    })
    .superRefine(({ instanceUuid, path: at }, context) => {
      const refuse = (key: string, message: string): void => context.addIssue({ code: 'custom', path: [key], message });
      if (instanceUuid === undefined && at === undefined)
        refuse('instanceUuid', 'is missing: give instanceUuid, or path');
      if (instanceUuid !== undefined && at !== undefined)
        refuse('path', 'is there besides instanceUuid: give one of the two');
    });
}
