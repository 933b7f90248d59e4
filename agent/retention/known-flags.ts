import { KeyRefused } from '../../crypto/errors.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { flagOf } from '../../replica/manifest.ts';
import type { OpenReplica } from '../../restore/open-point.ts';
import type { Config } from '../config/config-schema.ts';
import { MachineState } from '../state/machine-state.ts';

/** Which points are flagged stands in their manifests, or, for a host that may not open those, in what it remembers of its own runs. */

/** Neither can be read here, so nothing may be pruned by it. */
export class FlagsUnknown extends Error {
  readonly code = 'FLAGS_UNKNOWN';
  override readonly name = 'FlagsUnknown';
}

/** Opens each retained point: a GET for each. */
export async function knownFlags(
  replica: OpenReplica,
  config: Config,
  machineName: string,
  signal: AbortSignal,
): Promise<(point: number) => boolean> {
  const flagged = new Set<number>();
  let remembered: ReadonlySet<number> | null = null;
  for (const point of replica.points) {
    try {
      if (flagOf((await replica.openPoint(point, signal)).manifest) !== null) flagged.add(point);
    } catch (error) {
      if (!(error instanceof KeyRefused)) throw error;
      remembered ??= rememberedFlags(replica, config, machineName, error);
      if (remembered.has(point)) flagged.add(point);
    }
  }
  return (point) => flagged.has(point);
}

function rememberedFlags(
  { chain }: OpenReplica,
  { state }: Config,
  machineName: string,
  cause: KeyRefused,
): ReadonlySet<number> {
  const flags = MachineState.look(state, machineName, ({ machineId, trackRecord }) => {
    if (machineId === null || !sameBytes(machineId, chain.machineId)) return null;
    return trackRecord.alarms.flatMap(({ kind, point }) => (kind === 'change' && point !== null ? [point] : []));
  });
  if (flags !== null) return new Set(flags);
  throw new FlagsUnknown(
    `replica ${toHex(chain.machineId)} of ${machineName}: its points can't be opened here, and this host did not publish them, so that nobody knows which are flagged; nothing was pruned`,
    { cause },
  );
}
