import * as z from 'zod';

/** How a machine of plain QEMU is made: what a script has to know that starts it anew. */

export const qemuMachineName = 'qemu-machine.json';

const qemuMachine = z.object({
  machineType: z.string().nullable(),
  architecture: z.string(),
  memoryMiB: z.int().positive(),
  processors: z.int().positive(),
  /** The UEFI firmware's file on its host. */
  loader: z.string().nullable(),
  /** By label of the disk. */
  buses: z.record(z.string(), z.string()),
});
export type QemuMachine = z.infer<typeof qemuMachine>;

export function encodeMachine(machine: QemuMachine): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(machine, null, 2)}\n`);
}

/** Null for what is no such description. */
export function parseMachine(text: string): QemuMachine | null {
  try {
    return qemuMachine.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
