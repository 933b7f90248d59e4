import * as z from 'zod';
import { path, text } from './fields.ts';
import type { References } from './references.ts';

export function hypervHost(references: References) {
  return z.strictObject({
    name: text(100).describe('What machines refer to by source.from.'),
    type: z.literal('hyperv'),
    powershell: text(4096).default('powershell.exe').describe('The program, or its name: Windows PowerShell 5.1.'),
    journal: path(references)
      .nullable()
      .default(null)
      .describe(
        'Folder where it is written down what belongs to us on the host; in a cluster one that every node reaches. Empty: in the state folder.',
      ),
  });
}

export function hypervSource() {
  return z.strictObject({
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
    exclude: z
      .array(text(100))
      .max(256)
      .prefault([])
      .describe('Disks that are left out, by label: points are partial.'),
  });
}
