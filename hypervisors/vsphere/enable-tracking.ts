import { randomBytes } from 'node:crypto';
import { type MachineState, readMachine } from './machine-state.ts';
import { makeWay } from './make-way.ts';
import { booleanTag, tag } from './vim25/soap-xml.ts';
import { runTask } from './vim25/tasks.ts';
import { isUnheard, VsphereRefused } from './vsphere-errors.ts';
import { snapshotPrefix, type VsphereSite } from './vsphere-site.ts';

/** Changed block tracking is a setting that a machine takes over when it stands still for a moment. */

const reconfigureTimeoutMs = 10 * 60 * 1000;
const snapshotTimeoutMs = 30 * 60 * 1000;

/** Where the policy allows it. Returns the machine as it is then. */
export async function enableTracking(
  site: VsphereSite,
  state: MachineState,
  signal: AbortSignal,
): Promise<MachineState> {
  const { session, ref, machine } = site;
  if (state.tracking !== 'off' || machine.tracking === 'leave') return state;
  const spec = tag('spec', [booleanTag('changeTrackingEnabled', true)]);
  try {
    await runTask(session, 'ReconfigVM_Task', ref, [spec], reconfigureTimeoutMs, signal);
  } catch (error) {
    // Mostly for somebody else's snapshots: then each run reads everything until they are gone. failkit doctor says so.
    if (error instanceof VsphereRefused) return state;
    throw error;
  }
  // A running machine begins to track at its next snapshot: one that is thrown away, so that the next has a change id.
  if (state.powerState !== 'poweredOff') {
    const name = `${snapshotPrefix(machine)}tracking-${randomBytes(4).toString('hex')}`;
    const parameters = [
      tag('name', name),
      tag('description', 'changed block tracking begins here'),
      booleanTag('memory', false),
      booleanTag('quiesce', false),
    ];
    try {
      await runTask(session, 'CreateSnapshot_Task', ref, parameters, snapshotTimeoutMs, signal);
    } catch (error) {
      // Taken or not, it goes; where it was not, the next one has no change id, and all is read once more.
      if (!isUnheard(error)) throw error;
    }
    return await makeWay(site, signal);
  }
  return await readMachine(session, ref, signal);
}
