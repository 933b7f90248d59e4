import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { toHex } from '../../replica/encoding.ts';
import { type DiskState, flagOf } from '../../replica/manifest.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { type OpenPoint, OpenReplica } from '../../restore/open-point.ts';
import { restoreAttachments } from '../../restore/restore-attachments.ts';
import { type RestoreProgress, type RestoreTools, restoreDisk } from '../../restore/restore-disk.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { openExportSink, openQcow2Sink } from '../../restore/sinks/nbd-sink.ts';
import { makeOutputFolder, openRawSink } from '../../restore/sinks/raw-sink.ts';
import type { RestoreSink } from '../../restore/sinks/sink.ts';
import { openVhdxSink } from '../../restore/sinks/vhdx-sink.ts';
import { findPoint } from '../choose-point.ts';
import { checkDefinition, type DefineOptions, defineRestored } from '../define-restored.ts';
import { findMachine } from '../find-machine.ts';
import { describeFreshness, knownHead } from '../freshness.ts';
import { rangesInFlightMax, workersOf } from '../memory-budget.ts';
import { OutputPositions, restoreProgress } from '../progress/restore-progress.ts';
import { watchProgress } from '../progress/watch-progress.ts';
import { formatBytes, formatDuration, formatSpeed } from '../quantities.ts';
import { holdPoint } from '../retention/hold-point.ts';
import { openSession } from '../session.ts';
import { planUpload, type RestoredOutput, type VsphereOptions } from '../upload-to-vsphere.ts';
import { chooseDisks } from './choose-disks.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit restore`: a recovery point's disks into files, onto a block device or an NBD export. */

interface RestoreOptions extends DefineOptions, VsphereOptions {
  readonly point?: string;
  readonly format: 'raw' | 'qcow2' | 'vhdx';
  readonly expectHead?: string;
  readonly salvage?: boolean;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('restore')
    .description('restore the disks of a recovery point into files, or one disk to a file, block device or NBD export')
    .argument('<machine>', 'name or id')
    .requiredOption(
      '--to <path>',
      'folder for all disks (LABEL.raw) and attachments; with --disk the file, block device or NBD export itself',
    )
    .addOption(
      new Option('--format <format>', 'of the files; qcow2 needs qemu-utils')
        .choices(['raw', 'qcow2', 'vhdx'])
        .default('raw'),
    )
    .option('--point <point>', 'number, or a time (the newest point not after it); default: the newest')
    .option('--disk <label>', 'restore this disk only')
    .option('--define <uri>', 'make the machine known to libvirt at this address, under a new name and identity')
    .option('--define-file <file>', 'write that definition to a file')
    .option('--qemu <file>', 'write a script that starts the machine with plain QEMU')
    .option('--vsphere <source>', 'upload the disks to this source of the configuration, and create the machine there')
    .option('--datastore <name>', 'of vSphere: where its files go')
    .option('--vm-folder <path>', 'of vSphere, as datacenter/vm/folder (default: that of the datacenter)')
    .option('--pool <path>', 'of vSphere, as cluster/Resources/pool (default: the only one that has the datastore)')
    .option('--name <name>', 'of the machine as it is defined; default: its old name with -restored')
    .option('--network <name>', 'network of libvirt or vSphere to connect it to; by default it has none')
    .option('--force', 'overwrite what is there; needed for every block device and NBD export')
    .option('--salvage', 'read around damage to the chain: take what is still whole')
    .option('--expect-head <seq:digest>', 'the head that you noted: refuse a bucket that shows an older one')
    .action((machine: string, options: RestoreOptions, command: Command) =>
      run(command, (context) => restore(machine, options, context)),
    );
}

async function restore(machine: string, options: RestoreOptions, context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  await using session = await openSession(context, { salvage: options.salvage === true });
  const machineId = await findMachine(session, machine, signal);
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal, {
    salvage: options.salvage === true,
  });
  const freshness = await describeFreshness(replica, knownHead(session, machineId, options.expectHead), signal);
  const point = await replica.openPoint(await findPoint(replica, options.point, session.config, signal), signal);
  await using _held = options.salvage === true ? null : await holdPoint(replica, point.point, context);
  const disks = chooseDisks(point, options.disk);
  await checkDefinition(options, point, signal);
  const flag = flagOf(point.manifest);
  if (flag !== null) context.output.note(`point ${point.point} is flagged: it ${flag}: ransomware or a runaway job?`);
  using reader = new SegmentReader(session.repo, machineId, replica.keys);
  await using vsphere = await planUpload(options, { point, machineId, reader }, context);
  await using workers = new RestoreWorkers(workersOf(session.config));
  const progress: RestoreProgress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
  const tools = { reader, keys: replica.keys, workers, rangesInFlightMax: rangesInFlightMax(session.config), progress };
  const started = performance.now();
  const positions = new OutputPositions();
  const capacityBytes = disks.reduce((sum, disk) => sum + disk.capacityBytes, 0);
  const report = restoreProgress(point.manifest.machineName, capacityBytes, positions, progress, started);
  using _watching = watchProgress(context.output, report);
  if (options.disk === undefined) await makeOutputFolder(options.to);
  const uploaded: string[] = [];
  const from = { machineId, point: point.point, tools, positions };
  await restoreDisks(disks, options, from, signal, async (outputs) => {
    if (vsphere !== null) uploaded.push(...(await vsphere.upload(outputs, signal)));
  });
  if (options.disk === undefined)
    await restoreAttachments(
      point.manifest.attachments,
      join(options.to, 'attachments'),
      reader,
      options.force === true,
      signal,
    );
  const files = disks.map((disk) => ({ label: disk.label, path: pathOf(disk, options), format: options.format }));
  const defined = [...uploaded, ...(await defineRestored(options, point, files, signal))];
  const durationMs = performance.now() - started;
  return answer(point, disks, options, progress, { durationMs, freshness, defined }, context);
}

/** No disk gets its name before all are whole: until then the same command goes on, instead of meeting its own outputs. */
async function restoreDisks(
  disks: readonly DiskState[],
  options: RestoreOptions,
  from: {
    readonly machineId: Uint8Array;
    readonly point: number;
    readonly tools: RestoreTools;
    readonly positions: OutputPositions;
  },
  signal: AbortSignal,
  whenWhole: (outputs: readonly RestoredOutput[]) => Promise<void>,
): Promise<void> {
  await using open = new AsyncDisposableStack();
  const outputs: RestoredOutput[] = [];
  for (const disk of disks) outputs.push({ disk, sink: open.use(await openOutput(disk, options, from, signal)) });
  for (const { disk, sink } of outputs) await restoreDisk(disk, from.positions.watch(sink), from.tools, signal);
  await whenWhole(outputs);
  for (const { sink } of outputs) await sink.complete(signal);
}

async function openOutput(
  disk: DiskState,
  options: RestoreOptions,
  from: { readonly machineId: Uint8Array; readonly point: number },
  signal: AbortSignal,
): Promise<RestoreSink> {
  const shortId = (id: Uint8Array): string => toHex(id).slice(0, 8);
  const contentName = `${shortId(from.machineId)}-${from.point}-${shortId(disk.diskId)}`;
  const { capacityBytes } = disk;
  const force = options.force === true;
  if (isNbdUri(options)) return await openExportSink({ uri: options.to, capacityBytes, force }, signal);
  const file = { path: pathOf(disk, options), capacityBytes, force, contentName };
  if (options.format === 'qcow2') return await openQcow2Sink(file, signal);
  return options.format === 'vhdx' ? await openVhdxSink(file, signal) : await openRawSink(file);
}

/** Only for one disk: a folder may have any name. */
function isNbdUri({ to, disk }: RestoreOptions): boolean {
  return disk !== undefined && /^nbds?(\+unix)?:/.test(to);
}

function pathOf(disk: DiskState, options: RestoreOptions): string {
  return options.disk === undefined ? join(options.to, `${fileNameOf(disk.label)}.${options.format}`) : options.to;
}

/** A label may hold anything; a file name must not lead elsewhere. */
function fileNameOf(label: string): string {
  const name = label.replace(/[^A-Za-z0-9._ -]/g, '_');
  return name.startsWith('.') ? `_${name}` : name;
}

function answer(
  { point, manifest }: OpenPoint,
  disks: readonly DiskState[],
  options: RestoreOptions,
  progress: RestoreProgress,
  { durationMs, freshness, defined }: { durationMs: number; freshness: string; defined: readonly string[] },
  context: CommandContext,
): CommandAnswer {
  const { green, yellow, dim } = context.output.colours;
  const snapshotTime = new Date(manifest.snapshotTimeMs).toISOString();
  const restored = disks.map((disk) => ({
    label: disk.label,
    path: pathOf(disk, options),
    capacityBytes: disk.capacityBytes,
  }));
  return {
    document: {
      machine: manifest.machineName,
      point,
      snapshotTime,
      consistency: manifest.consistency,
      freshness,
      durationMs,
      ...progress,
      disks: restored,
      excluded: manifest.excluded,
      defined,
    },
    lines: [
      `${green('ok')} ${manifest.machineName} as of ${snapshotTime} (point ${point}, ${manifest.consistency})`,
      ...restored.map(({ label, path, capacityBytes }) => `   ${label}  ${formatBytes(capacityBytes)}  ${path}`),
      ...defined.map((what) => `   ${what}`),
      ...manifest.excluded.map(({ label, reason }) => yellow(`   ${label} is not in this point: ${reason}`)),
      `   ${formatBytes(progress.writtenBytes)} written, ${formatBytes(progress.fetchedBytes)} fetched in ${formatDuration(durationMs)} (${formatSpeed((progress.writtenBytes / durationMs) * 1000)}); every block checked`,
      dim(`   ${freshness}`),
    ],
  };
}
