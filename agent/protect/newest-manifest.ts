import { type Chain, readPoint } from '../../replica/chain.ts';
import { isDamage } from '../../replica/damage.ts';
import type { KeyRing } from '../../replica/key-ring.ts';
import { type Manifest, openManifest } from '../../replica/manifest.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import type { MachineState } from '../state/machine-state.ts';

/**
 * What the newest recovery point says of the machine: from the local state if it is that very point's, else from the bucket.
 * Null when there is no point, or when it can't be opened here: then everything is sent again.
 */
export async function newestManifest(
  repo: OpenRepository,
  chain: Chain,
  ring: KeyRing,
  state: MachineState,
  access: 'full' | 'write-only',
  signal: AbortSignal,
): Promise<Manifest | null> {
  const point = chain.state.newestPoint;
  if (point === null) return null;
  const kept = state.manifest(point.digest);
  if (kept !== null || access === 'write-only') return kept;
  const entry = await readPoint(repo, chain, point.seq, signal);
  if (entry.body.type !== 'publish') return null;
  try {
    const { key, context } = await ring.epoch(entry.body.epoch, signal);
    return openManifest(key, { context, seq: entry.seq, tenure: entry.tenure }, entry.body.sealedManifest);
  } catch (error) {
    // Its key record is damaged: nobody opens this point any more.
    if (isDamage(error)) return null;
    throw error;
  }
}
