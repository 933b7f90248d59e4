import { freeSpaceOf, type HypervState } from './hyperv-calls.ts';
import { HypervRefused, HypervVolumeFull } from './hyperv-errors.ts';
import { chooseDisks, type HypervSite } from './hyperv-site.ts';

/** Of a volume that has less left than `bytes`. */
export interface NarrowVolume {
  readonly path: string;
  readonly freeBytes: number;
}

/** While a checkpoint is there, what guests write grows beside their disks. Shares of other servers are not seen. */
export async function narrowVolumes(
  { client, machine }: HypervSite,
  { disks }: HypervState,
  bytes: number,
  signal: AbortSignal,
): Promise<readonly NarrowVolume[]> {
  const paths = chooseDisks(machine, disks).chosen.map(({ path }) => path);
  try {
    return (await freeSpaceOf(client, paths, signal)).filter(({ freeBytes }) => freeBytes < bytes);
  } catch (error) {
    // Who may administer Hyper-V need not see its volumes: then nobody can look.
    if (!(error instanceof HypervRefused)) throw error;
    return [];
  }
}

/** Throws HypervVolumeFull. */
export async function requireRoom(site: HypervSite, state: HypervState, signal: AbortSignal): Promise<void> {
  const { name, volumeFreeBytesMin } = site.machine;
  const [first] = await narrowVolumes(site, state, volumeFreeBytesMin, signal);
  if (first === undefined) return;
  throw new HypervVolumeFull(
    `machine ${name}: where ${first.path} lies, ${first.freeBytes} bytes are left, and ${volumeFreeBytesMin} are wanted before a checkpoint is taken`,
  );
}
