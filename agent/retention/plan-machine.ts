import type { Chain } from '../../replica/chain.ts';
import { isHolding, readPins } from '../../replica/pins.ts';
import { type PlannedPoint, planPrune } from '../../replica/plan-prune.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import type { MachineConfig } from '../config/config-schema.ts';
import type { Session } from '../session.ts';
import { knownFlags } from './known-flags.ts';

export type RetainedMachine = MachineConfig & { readonly retention: NonNullable<MachineConfig['retention']> };

const dayMs = 24 * 3_600_000;

/** What the configuration's retention makes of a chain, with the pins, the root key's floor and the flags as they are now. */
export async function planMachine(
  chain: Chain,
  machine: RetainedMachine,
  { repo, config, provider }: Session,
  signal: AbortSignal,
): Promise<readonly PlannedPoint[]> {
  const storeNowMs = (await repo.target.now(signal)).getTime();
  const pins = await readPins(repo.target, chain.machineId, signal);
  const pinned = new Set(pins.filter((pin) => isHolding(pin, storeNowMs)).map(({ point }) => point));
  return await planPrune([...chain.state.points.values()], {
    policy: machine.retention,
    nowMs: storeNowMs,
    pinned,
    floorMs: repo.trust.retentionFloorDays * dayMs,
    flags: async () => {
      using replica = await OpenReplica.open(repo, chain.machineId, [provider], signal);
      return await knownFlags(replica, config, machine.name, signal);
    },
  });
}
