import { SourceNotFound } from '../errors.ts';
import type { HypervisorConnection, Machine, MachineRef } from '../hypervisor.ts';
import type { ImageMachine } from './image-machine.ts';
import { measureDisk } from './open-disk.ts';
import { snapshotImages } from './snapshot-images.ts';

/** The `image` source: no hypervisor. Only qcow2 with bitmaps tracks changes; each run lists and reads everything else. */
export function connectImages(machines: readonly ImageMachine[]): HypervisorConnection {
  return {
    listMachines: (signal) => listImageMachines(machines, signal),
    snapshot: async (machine, options, signal) => snapshotImages(findMachine(machines, machine), options, signal),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

async function* listImageMachines(machines: readonly ImageMachine[], signal: AbortSignal): AsyncGenerator<Machine> {
  for (const machine of machines) {
    signal.throwIfAborted();
    const disks = await Promise.all(
      machine.disks.map(async (disk) => ({
        label: disk.label,
        capacityBytes: await measureDisk(machine.name, disk, signal),
      })),
    );
    yield { name: machine.name, disks };
  }
}

function findMachine(machines: readonly ImageMachine[], wanted: MachineRef): ImageMachine {
  const found = machines.find((machine) => machine.name === wanted.name);
  if (found !== undefined) return found;
  throw new SourceNotFound(`machine ${wanted.name} is not configured as an image: add it to the configuration`);
}
