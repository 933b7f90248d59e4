import { fine, hopeless, type MachineFinding, worrying } from '../kvm/machine-finding.ts';
import type { HypervState } from './hyperv-calls.ts';
import {
  checkpointPrefix,
  chooseDisks,
  type HypervSite,
  isRunning,
  readWherever,
  tracksChanges,
  whyBusy,
} from './hyperv-site.ts';
import { narrowVolumes } from './require-room.ts';

/** What stands in the way of a run, or will. Asks only, and leaves the machine as it is. */
export interface ExaminedMachine {
  readonly findings: readonly MachineFinding[];
  readonly disks: readonly { readonly label: string; readonly capacityBytes: number }[];
}

const lossesDoubtful = 2;
/** What is written while a checkpoint is there, and merging it, needs room beside the disks. */
const freeBytesDoubtful = 20 * 2 ** 30;

export async function examineMachine(site: HypervSite, signal: AbortSignal): Promise<ExaminedMachine> {
  const state = await readWherever(site, signal, true);
  const { chosen } = chooseDisks(site.machine, state.disks);
  const findings = [
    ...examinePlace(site, state),
    ...examineTracking(site, state),
    ...examineLosses(site),
    ...examineCheckpoints(site, state),
    ...examineDisks(site, state),
    ...(await examineSpace(site, state, signal)),
  ];
  return { findings, disks: chosen.map(({ label, capacityBytes }) => ({ label, capacityBytes: capacityBytes ?? 0 })) };
}

function examinePlace(_site: HypervSite, state: HypervState): readonly MachineFinding[] {
  const { owner, node, replication, tpm, quiesces } = state;
  const findings: MachineFinding[] = [];
  if (owner !== null && owner.toLowerCase() !== node.toLowerCase())
    findings.push(hopeless(`it runs on ${owner}, and this is ${node}`, 'run it from there, or name that host'));
  const busy = whyBusy(state);
  if (busy !== null) findings.push(worrying(null, busy, 'a run waits for that, and then gives up'));
  if (replication !== 0)
    findings.push(
      worrying(null, 'Hyper-V Replica is on for it: both want checkpoints', 'let them run at different times'),
    );
  if (isRunning(state) && !quiesces)
    findings.push(
      worrying(null, 'its guest service for checkpoints does not answer: points are crash-consistent', 'switch it on'),
    );
  if (tpm)
    findings.push(
      worrying(null, 'it has a virtual TPM, whose content is not captured', 'keep recovery keys elsewhere'),
    );
  return findings;
}

function examineTracking({ machine, journal }: HypervSite, state: HypervState): readonly MachineFinding[] {
  const { version, generation, referencePoints } = state;
  const known = journal.runs.flatMap(({ referencePoint }) => referencePoint ?? []);
  const unknown = referencePoints.filter(({ id }) => !known.includes(id));
  const findings: MachineFinding[] = [];
  if (!tracksChanges(state))
    findings.push(
      worrying(
        null,
        `its configuration version ${version} has no resilient change tracking: each run reads everything`,
        'upgrade it: Update-VMVersion',
      ),
    );
  else if (machine.tracking === 'leave') findings.push(fine('what Hyper-V tracks is not asked for'));
  else findings.push(fine(`generation ${generation}, version ${version}, tracks its changes`));
  if (unknown.length > 0)
    findings.push(
      worrying(
        null,
        `${unknown.length} of its reference points are not known here: another product's, or left over from a lost journal`,
        'if no other product protects it, remove them as docs/operations/hyperv.md says',
      ),
    );
  return findings;
}

function examineLosses({ journal }: HypervSite): readonly MachineFinding[] {
  return Object.entries(journal.losses)
    .filter(([, { times }]) => times >= lossesDoubtful)
    .map(([label, { times, why }]) =>
      worrying(
        label,
        `${times} times in a row it was not known what changed, and all of it was read: ${why}`,
        'see what resets its tracking: another product, a job that compacts or edits the disk, too little room for its log',
      ),
    );
}

function examineCheckpoints({ machine, journal }: HypervSite, state: HypervState): readonly MachineFinding[] {
  const isOurs = ({ id, name }: HypervState['checkpoints'][number]): boolean =>
    name.startsWith(checkpointPrefix(machine)) || journal.runs.some(({ checkpoint }) => checkpoint === id);
  const recovery = state.checkpoints.filter((each) => each.recovery);
  const foreign = recovery.filter((each) => !isOurs(each));
  const others = state.checkpoints.filter((each) => !each.recovery);
  const names = (list: HypervState['checkpoints']): string => list.map(({ name }) => name).join(', ');
  return [
    ...(foreign.length === 0
      ? []
      : [hopeless(`it has a recovery checkpoint of another product (${names(foreign)})`, 'wait until that is done')]),
    ...(recovery.length === foreign.length
      ? []
      : [worrying(null, 'a checkpoint of an earlier run is still there', 'nothing to do: the next run removes it')]),
    ...(others.length === 0
      ? []
      : [
          worrying(null, `it has checkpoints (${names(others)}): its disks grow`, 'remove them when nobody needs them'),
        ]),
    ...(state.mergesDisks
      ? []
      : [worrying(null, 'merging its disks is switched off', 'nothing to do: the next run switches it on')]),
  ];
}

function examineDisks({ machine }: HypervSite, state: HypervState): readonly MachineFinding[] {
  const { chosen, excluded } = chooseDisks(machine, state.disks);
  const left = excluded.filter(({ label }) => !machine.excludedDisks.includes(label));
  return [
    ...(chosen.length === 0
      ? [hopeless('no disk of it can be protected', 'see failkit machines for the reasons')]
      : []),
    ...left.map(({ label, reason }) =>
      worrying(label, `it is left out: ${reason}`, 'name it under exclude, so that nobody is surprised'),
    ),
  ];
}

async function examineSpace(
  site: HypervSite,
  state: HypervState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const least = site.machine.volumeFreeBytesMin;
  const volumes = await narrowVolumes(site, state, Math.max(freeBytesDoubtful, least), signal);
  return volumes.map(({ path, freeBytes }) =>
    freeBytes < least
      ? hopeless(
          `${freeBytes} bytes are left where ${path} lies, and no checkpoint is taken below ${least}`,
          'make room',
        )
      : worrying(
          null,
          `only ${Math.floor(freeBytes / 2 ** 30)} GiB are free where ${path} lies: a checkpoint grows there`,
          'make room',
        ),
  );
}
