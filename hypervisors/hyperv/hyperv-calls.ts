import * as z from 'zod';
import type { WorkerClient } from './worker-client.ts';

/** What the worker can be asked, and the precise form of its answers. 64-bit numbers are texts: JSON has none. */

const u64 = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform((text, context) => {
    const value = Number(text);
    if (Number.isSafeInteger(value)) return value;
    context.addIssue({ code: 'custom', message: 'is larger than any disk' });
    return z.NEVER;
  });
const time = z.iso.datetime({ offset: true }).transform((text) => new Date(text));

const disk = z.object({
  /** Controller and place on it: the same in a machine, its checkpoints and its reference points. */
  key: z.string(),
  /** `scsi0:1`, `ide0:0`: names the disk in the replica. */
  label: z.string(),
  path: z.string(),
  /** Null where the host can't tell. */
  capacityBytes: u64.nullable(),
  passThrough: z.boolean(),
  shared: z.boolean(),
});
export type HypervDisk = z.output<typeof disk>;

const referencePoint = z.object({
  id: z.string(),
  /** Ids by which to ask what changed; a disk that is not tracked has none. */
  disks: z.array(z.object({ key: z.string(), tracking: z.string() })),
});

const checkpoint = z.object({ id: z.string(), name: z.string(), recovery: z.boolean(), createdAt: time });

const machine = z.object({
  id: z.string(),
  name: z.string(),
  /** Of its configuration, as `9.0`. */
  version: z.string(),
  generation: z.union([z.literal(1), z.literal(2)]),
  /** `EnabledState` and `OperationalStatus` of Msvm_ComputerSystem. */
  state: z.number(),
  status: z.array(z.number()),
  /** `ReplicationState`: 0 is none. */
  replication: z.number(),
  /** The node of the cluster that runs it; null outside of clusters. */
  owner: z.string().nullable(),
  /** This host, as the cluster calls it. */
  node: z.string(),
  /** The host's clock. */
  now: time,
  mergesDisks: z.boolean(),
  secureBoot: z.boolean(),
  tpm: z.boolean(),
  processors: z.number(),
  memoryMiB: u64,
  /** Whether Hyper-V can ask the guest to flush: the guest service, as the host sees it. */
  quiesces: z.boolean(),
  disks: z.array(disk),
  checkpoints: z.array(checkpoint),
  referencePoints: z.array(referencePoint),
});
export type HypervState = z.output<typeof machine>;

const hello = z.object({
  protocol: z.literal(1),
  powershell: z.string(),
  host: z.string(),
  system: z.string(),
  elevated: z.boolean(),
  administersHyperv: z.boolean(),
  cluster: z.string().nullable(),
  now: time,
});

/** Null: it was done at once. */
const started = z.object({ job: z.string().nullable(), made: z.string().nullable() });
export type Started = z.output<typeof started>;

const job = z.object({
  /** `JobState`: up to 6 it is under way, 7 is done. */
  state: z.number(),
  errorCode: z.number(),
  hresult: z.string().nullable(),
  description: z.string(),
  /** What it made: checkpoints, reference points. */
  made: z.array(z.string()),
});
export type HypervJob = z.output<typeof job>;

const changes = z.object({ processed: u64, offsets: z.array(u64), lengths: z.array(u64) });
export type HypervChanges = z.output<typeof changes>;

const documents = z.object({ documents: z.array(z.object({ kind: z.string(), text: z.string() })) });
const freeSpace = z.object({ volumes: z.array(z.object({ path: z.string(), freeBytes: u64 })) });
const nothing = z.unknown().transform(() => undefined);

/** Beside what the client allows: a window of changes may be found slowly. */
const changesTimeoutMs = 10 * 60_000;

export type Consistent = 'application' | 'crash';

export function askHost(client: WorkerClient, signal: AbortSignal) {
  return client.call('hello', {}, hello, signal);
}

export async function askMachines(client: WorkerClient, signal: AbortSignal): Promise<readonly HypervState[]> {
  return (await client.call('machines', {}, z.object({ machines: z.array(machine) }), signal, changesTimeoutMs))
    .machines;
}

/** `sizes`: how large its disks are, too, which Hyper-V has to be asked for one by one. */
export function askMachine(client: WorkerClient, vm: string, signal: AbortSignal, sizes = false): Promise<HypervState> {
  return client.call('machine', { vm, sizes }, machine, signal);
}

export function startCheckpoint(
  client: WorkerClient,
  { vm, name, consistency }: { readonly vm: string; readonly name: string; readonly consistency: Consistent },
  signal: AbortSignal,
): Promise<Started> {
  return client.call('checkpoint', { vm, name, consistency }, started, signal);
}

export async function checkpointDisks(
  client: WorkerClient,
  id: string,
  signal: AbortSignal,
): Promise<readonly HypervDisk[]> {
  return (await client.call('checkpoint-disks', { checkpoint: id }, z.object({ disks: z.array(disk) }), signal)).disks;
}

/** The settings of the checkpoint as Hyper-V has them. Not by an export: that switches the merging of disks off. */
export async function checkpointDocuments(client: WorkerClient, id: string, signal: AbortSignal) {
  return (await client.call('checkpoint-documents', { checkpoint: id }, documents, signal)).documents;
}

export function askJob(client: WorkerClient, id: string, signal: AbortSignal): Promise<HypervJob> {
  return client.call('job', { job: id }, job, signal);
}

export function changesSince(
  client: WorkerClient,
  asked: { readonly path: string; readonly since: string; readonly offset: number; readonly length: number },
  signal: AbortSignal,
): Promise<HypervChanges> {
  const args = { ...asked, offset: String(asked.offset), length: String(asked.length) };
  return client.call('changes', args, changes, signal, changesTimeoutMs);
}

/** Removes the checkpoint, too. */
export function startConversion(client: WorkerClient, checkpointId: string, signal: AbortSignal): Promise<Started> {
  return client.call('convert', { checkpoint: checkpointId }, started, signal);
}

export function startDestroyingCheckpoint(client: WorkerClient, id: string, signal: AbortSignal): Promise<Started> {
  return client.call('destroy-checkpoint', { checkpoint: id }, started, signal);
}

export function startDestroyingPoint(client: WorkerClient, id: string, signal: AbortSignal): Promise<Started> {
  return client.call('destroy-reference-point', { referencePoint: id }, started, signal);
}

export function enableMerging(client: WorkerClient, vm: string, signal: AbortSignal): Promise<undefined> {
  return client.call('enable-merging', { vm }, nothing, signal);
}

export async function freeSpaceOf(client: WorkerClient, paths: readonly string[], signal: AbortSignal) {
  return (await client.call('free-space', { paths }, freeSpace, signal)).volumes;
}
