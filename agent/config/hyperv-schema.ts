import * as z from 'zod';
import { path, secret, text } from './fields.ts';
import type { References } from './references.ts';

export function hypervHost(references: References) {
  return z.strictObject({
    name: text(100).describe('What machines refer to by source.from.'),
    type: z.literal('hyperv'),
    powershell: text(4096).default('powershell.exe').describe('The program, or its name: Windows PowerShell 5.1.'),
    ssh: ssh(references)
      .nullable()
      .default(null)
      .describe('Where the agent does not run on the host: how it is reached. Empty: it does.'),
    journal: path(references)
      .nullable()
      .default(null)
      .describe(
        'Folder where it is written down what belongs to us on the host; in a cluster one that every node reaches. Empty: in the state folder.',
      ),
  });
}

const sshPort = 22;
const mebibyte = 2 ** 20;

function ssh(references: References) {
  return z
    .strictObject({
      server: text(300)
        .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$/, 'must be host or host:port')
        .describe('Host name; with :port where it is not 22.'),
      user: text(200).describe('An account that administers Hyper-V and may read the disks.'),
      privateKey: secret(references),
      hostKey: z
        .string()
        .regex(/^SHA256:[A-Za-z0-9+/]{43}$/, "must be SHA256:… of the host's key, as ssh-keygen -l -f shows it")
        .describe("Fingerprint of the host's SSH key: no other one is spoken to."),
    })
    .transform(({ server, ...rest }) => {
      const [, host = '', port] = /^(\[.*\]|[^:]*)(?::(\d+))?$/.exec(server) ?? [];
      return { ...rest, host: host.replace(/^\[|\]$/g, ''), port: port === undefined ? sshPort : Number(port) };
    });
}

export function hypervSource() {
  return z
    .strictObject({
      type: z.literal('hyperv'),
      from: text(100).describe('The name of a source of type hyperv.'),
      vm: text(36)
        .regex(/^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/, 'must be a GUID: failkit machines shows it')
        .transform((typed) => typed.toLowerCase())
        .describe('Finds the machine, whatever it is called: failkit machines shows it.'),
      tracking: z
        .enum(['enable', 'leave'])
        .default('enable')
        .describe('leave: what Hyper-V tracks is not asked for, and each run reads everything.'),
      volumeFreeMiBMin: z
        .int()
        .min(0)
        .max(1_073_741_824)
        .default(4096)
        .describe(
          'No checkpoint is taken while a volume with disks of the machine has less left: checkpoints grow there.',
        ),
      exclude: z
        .array(text(100))
        .max(256)
        .prefault([])
        .describe('Disks that are left out, by label: points are partial.'),
    })
    .transform(({ volumeFreeMiBMin, ...rest }) => ({ ...rest, volumeFreeBytesMin: volumeFreeMiBMin * mebibyte }));
}
