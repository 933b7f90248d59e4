import type { DrillCheck, DrillMachine } from '../../drill/drill.ts';
import { isUefiVariables } from '../../drill/firmware.ts';
import { toHex } from '../../replica/encoding.ts';
import type { AttachmentState } from '../../replica/manifest.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { readAttachment } from '../../restore/restore-attachments.ts';
import type { RestoreWorkers } from '../../restore/restore-workers.ts';
import { findPoint } from '../choose-point.ts';
import type { CommandContext } from '../commands/command.ts';
import { findMachine } from '../find-machine.ts';
import { describeFreshness, knownHead } from '../freshness.ts';
import { rangesInFlightMax } from '../memory-budget.ts';
import { holdPoint } from '../retention/hold-point.ts';
import type { Session } from '../session.ts';
import { DrillOptionInvalid } from './drill-options.ts';
import { restoredDisk } from './restored-disk.ts';
import { servedDisk } from './served-disk.ts';

/** Of UEFI variables; nothing larger is one. */
const variablesBytesMax = 4 * 2 ** 20;
/** Of one disk: a drill may have a hundred of them. */
const cacheBytesMin = 2 * 2 ** 20;

/** Known once every machine is open: how many disks share it. */
export class SharedCache {
  readonly #bytes: number;
  #disks = 0;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  add(disks: number): void {
    this.#disks += disks;
  }

  get bytesOfOne(): number {
    return Math.max(cacheBytesMin, Math.floor(this.#bytes / Math.max(1, this.#disks)));
  }
}

export interface DrillWanted {
  readonly point: string | undefined;
  readonly checks: readonly DrillCheck[];
  readonly from: 'served' | 'restored';
  /** For opened blocks of all served disks together. */
  readonly cache: SharedCache;
}

export interface OpenedMachine {
  readonly machine: DrillMachine;
  readonly freshness: string;
}

/** Its point, ready to be booted; what that needs open lives as long as `stack`. */
export async function openDrillMachine(
  name: string,
  wanted: DrillWanted,
  session: Session,
  workers: RestoreWorkers,
  stack: AsyncDisposableStack,
  context: CommandContext,
): Promise<OpenedMachine> {
  const { signal } = context;
  const startedMs = performance.now();
  const machineId = await findMachine(session, name, signal);
  const replica = stack.use(await OpenReplica.open(session.repo, machineId, [session.provider], signal));
  const freshness = await describeFreshness(replica, knownHead(session, machineId, undefined), signal);
  const { point, manifest } = await replica.openPoint(
    await findPoint(replica, wanted.point, session.config, signal),
    signal,
  );
  if (manifest.disks.length === 0) throw new DrillOptionInvalid(`point ${point} of ${name} has no disk to boot from`);
  stack.use(await holdPoint(replica, point, context));
  wanted.cache.add(manifest.disks.length);
  const reader = stack.use(new SegmentReader(session.repo, machineId, replica.keys));
  const tools = { reader, workers, rangesInFlightMax: rangesInFlightMax(session.config) };
  const uefiVariables = await uefiVariablesOf(manifest.attachments, reader, signal);
  const machine: DrillMachine = {
    name: manifest.machineName,
    machineId: toHex(machineId),
    point,
    snapshotTime: new Date(manifest.snapshotTimeMs).toISOString(),
    consistency: manifest.consistency,
    excluded: manifest.excluded.map(({ label }) => label),
    openMs: performance.now() - startedMs,
    disks: manifest.disks.map((disk) =>
      wanted.from === 'served' ? servedDisk(disk, tools, wanted.cache) : restoredDisk(disk, tools),
    ),
    uefiVariables,
    checks: wanted.checks,
  };
  return { machine, freshness };
}

/** Known by their content: their name is the hypervisor's affair. */
async function uefiVariablesOf(
  attachments: readonly AttachmentState[],
  reader: SegmentReader,
  signal: AbortSignal,
): Promise<Uint8Array | null> {
  for (const attachment of attachments) {
    if (attachment.length > variablesBytesMax) continue;
    const bytes = await readAttachment(attachment, reader, signal);
    if (isUefiVariables(bytes)) return bytes;
  }
  return null;
}
