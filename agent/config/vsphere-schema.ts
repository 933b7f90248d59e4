import * as z from 'zod';
import { path, proxyAddress, secret, text, textOrReference } from './fields.ts';
import type { References } from './references.ts';

const portDefault = 443;
const mebibyte = 2 ** 20;

export function vsphereServer(references: References) {
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
        .describe("SHA-256 of the server's certificate: then no other one is trusted."),
      caFile: path(references)
        .nullable()
        .default(null)
        .describe('PEM file of the authority that signed its certificate. Empty: those of the system.'),
      proxy: proxyAddress(references).nullable().default(null).describe('Address of an HTTP proxy.'),
      vddk: vddk(references).prefault({}).describe("How disks are read: nbdkit with VMware's VDDK."),
    })
    .refine(({ thumbprint, caFile }) => thumbprint === null || caFile === null, {
      path: ['caFile'],
      error: 'is there besides a thumbprint: give one of the two',
    })
    .transform(({ server, ...rest }) => ({ ...rest, address: addressOf(server) }));
}

function vddk(references: References) {
  return z.strictObject({
    libdir: path(references)
      .prefault('/opt/vmware-vix-disklib-distrib')
      .describe('Where the VDDK is unpacked, which VMware gives to its customers.'),
    nbdkit: text(4096).default('nbdkit').describe('The program, or its name.'),
    transports: text(100)
      .regex(/^[a-z]+(:[a-z]+)*$/, 'must be names with colons between, as nbdssl:hotadd')
      .default('nbdssl')
      .describe('How VDDK gets at the bytes, the best first. nbd sends them unencrypted.'),
    compression: z.enum(['none', 'zlib', 'fastlz', 'skipz']).default('none').describe('Between host and agent.'),
    unbuffered: z.boolean().default(false).describe('Bypass the caches of the host: faster on some storage.'),
    thumbprintHash: z
      .enum(['sha1', 'sha256'])
      .default('sha1')
      .describe('The hash that this VDDK knows certificates by.'),
    configFile: path(references).nullable().default(null).describe('Settings of VDDK itself. Empty: ours.'),
  });
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
      tracking: z
        .enum(['enable', 'leave'])
        .default('enable')
        .describe(
          'enable: changed block tracking is switched on where it is off; leave: then each run reads everything.',
        ),
      reads: z
        .enum(['vddk', 'datastore'])
        .default('vddk')
        .describe('datastore: over HTTPS from the datastore, for sites without VDDK: slower, and with limits.'),
      datastoreFreeMiBMin: z
        .int()
        .min(0)
        .max(1_073_741_824)
        .default(4096)
        .describe('No snapshot is taken while a datastore of the machine has less left: snapshots grow there.'),
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
    })
    .transform(({ datastoreFreeMiBMin, ...rest }) => ({
      ...rest,
      datastoreFreeBytesMin: datastoreFreeMiBMin * mebibyte,
    }));
}
