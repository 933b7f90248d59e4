import { sameBytes } from '../replica/encoding.ts';
import type { VerifyReport } from '../restore/verify/finding.ts';
import type { Session } from './session.ts';
import { StateBusy } from './state/errors.ts';
import { MachineState } from './state/machine-state.ts';

/** Hands what verifying found to the next run on this host, which sends it again. Returns how many segments that are. */
export function rememberDamage(session: Session, machineId: Uint8Array, report: VerifyReport): number {
  if (report.repairable.length === 0) return 0;
  for (const { name } of session.config.machines) {
    try {
      using state = new MachineState(session.config.state, name);
      if (state.machineId === null || !sameBytes(state.machineId, machineId)) continue;
      state.addDamagedSegments(report.repairable);
      return report.repairable.length;
    } catch (error) {
      // A run that is under way meets the damage itself where it matters to it.
      if (!(error instanceof StateBusy)) throw error;
    }
  }
  return 0;
}
