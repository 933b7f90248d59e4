import * as z from 'zod';
import type { Secret } from '../../crypto/redacted.ts';
import { parseRootFingerprint } from '../../crypto/root-fingerprint.ts';
import { formatByName, type ImageDisk, imageFormats, placeOf } from '../../hypervisors/image/image-machine.ts';
import { parseNbdUri } from '../../hypervisors/nbd/nbd-uri.ts';
import { path, text } from './fields.ts';
import { groups, refuseWrongGroups } from './groups-schema.ts';
import { hypervSource } from './hyperv-schema.ts';
import { keys } from './keys-schema.ts';
import type { References } from './references.ts';
import { repository } from './repository-schema.ts';
import { retention, retentionOf } from './retention-schema.ts';
import { refuseUnknownSources, sources } from './sources-schema.ts';
import { vsphereSource } from './vsphere-schema.ts';

const kibibyte = 1024;
const mebibyte = kibibyte * kibibyte;
const gibibyte = kibibyte * mebibyte;
const dayMs = 24 * 3600 * 1000;
/** Link speeds are in decimal megabits, as providers sell them. */
const bytesPerMegabit = 1_000_000 / 8;

/** The whole configuration, every default filled in, paths absolute, references resolved, sizes in bytes. */
export type Config = DeepReadonly<z.output<ReturnType<typeof configSchema>>>;
export type RepositoryConfig = Config['repository'];
export type S3RepositoryConfig = Extract<RepositoryConfig, { target: 's3' }>;
export type AwsCredentialsConfig = S3RepositoryConfig['credentials'];
export type AzureRepositoryConfig = Extract<RepositoryConfig, { target: 'azure-blob' }>;
export type GcsRepositoryConfig = Extract<RepositoryConfig, { target: 'gcs' }>;
export type KeysConfig = Config['keys'];
export type MachineConfig = Config['machines'][number];
export type ImageSourceConfig = Extract<MachineConfig['source'], { type: 'image' }>;
export type KvmSourceConfig = Extract<MachineConfig['source'], { type: 'kvm' }>;
export type VsphereSourceConfig = Extract<MachineConfig['source'], { type: 'vsphere' }>;
export type HypervSourceConfig = Extract<MachineConfig['source'], { type: 'hyperv' }>;
export type SourceConfig = Config['sources'][number];
export type VsphereServerConfig = Extract<SourceConfig, { type: 'vsphere' }>;
export type HypervHostConfig = Extract<SourceConfig, { type: 'hyperv' }>;
export type LoggingConfig = Config['logging'];
export type LogLevel = LoggingConfig['level'];

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;

type DeepReadonly<T> = T extends Secret
  ? T
  : T extends readonly (infer Item)[]
    ? readonly DeepReadonly<Item>[]
    : T extends object
      ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
      : T;

/** The one definition: config.schema.json, the types above and the errors of loadConfig come from it. */
export function configSchema(references: References) {
  return z
    .strictObject({
      repository: repository(references).describe('Where the replicas are kept.'),
      rootFingerprint: rootFingerprintText()
        .nullable()
        .default(null)
        .describe("Fingerprint of the repository's root key, from the recovery kit. The host that ran init knows it."),
      keys: keys(references).describe('Who keeps the key that wraps the data keys.'),
      access: z
        .enum(['full', 'write-only'])
        .default('full')
        .describe('write-only: this host may not unwrap keys; restore and full verify then need another one.'),
      state: path(references)
        .prefault('/var/lib/failkit')
        .describe("The agent's own folder: run journal, sealed head map, agent key. Made with mode 0700."),
      sources: sources(references).describe('What machines are read from: vCenters, ESXi hosts, Hyper-V hosts.'),
      machines: machines(references).describe('The machines to protect.'),
      segmentMiB: z.int().min(4).max(32).default(8).describe('A stored object is closed at this size.'),
      compression: z
        .strictObject({
          level: z
            .union([z.literal('auto'), z.int().min(-7).max(19)])
            .default('auto')
            .describe('zstd level; lower is faster. auto: 1 to 9, as the uplink gives time. 0: nothing is compressed.'),
        })
        .prefault({}),
      limits: limits(),
      spotCheck: spotCheck().prefault({}).describe('Of machines that have none of their own.'),
      changeAlarm: changeAlarm().prefault({}).describe('Of machines that have none of their own.'),
      compaction: compaction().prefault({}).describe('Of machines that have none of their own.'),
      retention: retention()
        .nullable()
        .default(null)
        .describe(
          'Which points failkit prune keeps, of machines that have none of their own, nor one of a group. Empty: all.',
        ),
      groups: groups().describe('Machines that have a retention in common.'),
      logging: logging(references),
    })
    .superRefine(refuseUnknownSources)
    .superRefine(refuseWrongGroups)
    .transform(
      ({
        segmentMiB,
        machines: list,
        spotCheck: check,
        changeAlarm: alarm,
        compaction: send,
        retention: policy,
        ...rest
      }) => ({
        ...rest,
        segmentBytes: segmentMiB * mebibyte,
        machines: list.map((one) => ({
          ...one,
          spotCheck: one.spotCheck ?? check,
          changeAlarm: one.changeAlarm ?? alarm,
          compaction: one.compaction ?? send,
          ...retentionOf(one, rest.groups, policy),
        })),
      }),
    );
}

function spotCheck() {
  return z
    .strictObject({
      everyDays: z
        .number()
        .min(0)
        .max(3650)
        .default(30)
        .describe('Each block that tracking says did not change is read again once in so many days; 0: none is.'),
      maxGiBPerRun: z.number().positive().max(65_536).default(64).describe('What one run may read for that, at most.'),
    })
    .transform(({ everyDays, maxGiBPerRun }) => ({
      everyMs: everyDays * dayMs,
      bytesPerRunMax: Math.ceil(maxGiBPerRun * gibibyte),
    }));
}

function changeAlarm() {
  return z
    .strictObject({
      enabled: z
        .boolean()
        .default(true)
        .describe('Flag points whose changes are far from what the machine usually does.'),
      fromMiB: z.number().min(0).max(1_048_576).default(512).describe('Runs that change less are never flagged.'),
    })
    .transform(({ enabled, fromMiB }) => ({ enabled, fromBytes: fromMiB * mebibyte }));
}

function compaction() {
  return z
    .strictObject({
      share: z
        .number()
        .min(0)
        .max(10)
        .default(0.25)
        .describe('Of what changes, so much more may be sent so that mostly dead segments go; 0: nothing is.'),
      maxMiBPerRun: z.number().positive().max(1_048_576).default(1024).describe('What one run may send for that.'),
    })
    .transform(({ share, maxMiBPerRun }) => ({ share, bytesPerRunMax: Math.ceil(maxMiBPerRun * mebibyte) }));
}

/** Checked here, so that a slip of the pen is not taken for an attack. */
function rootFingerprintText() {
  return z.string().transform((typed, context) => {
    try {
      return parseRootFingerprint(typed);
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'is no fingerprint' });
      return z.NEVER;
    }
  });
}

function machines(references: References) {
  return z
    .array(machine(references))
    .max(5000)
    .superRefine((list, context) => {
      for (const [index, name] of repeated(list.map((each) => each.name.normalize('NFC'))))
        context.addIssue({ code: 'custom', path: [index, 'name'], message: `is the name of another machine: ${name}` });
    })
    .prefault([]);
}

function machine(references: References) {
  return z
    .strictObject({
      name: text(200).describe('Shown to people, and encrypted in the replica.'),
      source: z
        .discriminatedUnion('type', [imageSource(references), kvmSource(references), vsphereSource(), hypervSource()])
        .describe('Where its disks are read.'),
      whenChanging: z
        .enum(['refuse', 'mark-inconsistent'])
        .default('refuse')
        .describe('What to do when a source that nothing can freeze changes while it is read.'),
      quiesce: z
        .enum(['off', 'prefer', 'require'])
        .default('prefer')
        .describe('Whether the guest is asked to flush and freeze; require fails the run when it can not.'),
      spotCheck: spotCheck().nullable().default(null).describe('Of this machine. Empty: as for all.'),
      changeAlarm: changeAlarm().nullable().default(null).describe('Of this machine. Empty: as for all.'),
      compaction: compaction().nullable().default(null).describe('Of this machine. Empty: as for all.'),
      retention: retention().nullable().default(null).describe('Of this machine. Empty: as for its group, or for all.'),
    })
    .refine((one) => !(one.source.type === 'image' && one.quiesce === 'require'), {
      path: ['quiesce'],
      error: 'an image source can not freeze a guest: use prefer or off',
    });
}

function imageSource(references: References) {
  const disk = z
    .strictObject({
      label: text(100).describe('Names the disk in the replica: keep it when the path changes.'),
      path: path(references).optional().describe('An image file or a block device.'),
      nbd: nbdAddress()
        .optional()
        .describe('Instead of a path: what an NBD server exports, and holds still meanwhile.'),
      format: z
        .enum(imageFormats)
        .optional()
        .describe('Of the file. Left out: vhdx for .vhdx and .avhdx, vpc for .vhd and .avhd, else raw.'),
      tracking: z
        .enum(['none', 'bitmap'])
        .default('none')
        .describe('bitmap: a qcow2 file keeps a persistent dirty bitmap, so that a sync reads only what changed.'),
      tls: nbdTls(references),
    })
    .superRefine(refuseImpossibleDisk)
    .transform(({ label, path: file, nbd, format, tracking, tls }): ImageDisk => {
      if (nbd !== undefined) return { label, nbd, tls };
      return { label, path: file ?? '', format: format ?? formatByName(file ?? ''), tracking };
    });
  return z.strictObject({
    type: z.literal('image'),
    disks: z.array(disk).min(1).max(256).superRefine(refuseTwins),
    attachments: attachmentPaths(references),
  });
}

function kvmSource(references: References) {
  return z
    .strictObject({
      type: z.literal('kvm'),
      libvirt: text(300).optional().describe('How libvirt is reached: qemu:///system, qemu+ssh://host/system, …'),
      domain: text(200).nullable().default(null).describe('Name or UUID in libvirt. Empty: the name of the machine.'),
      qmp: path(references).optional().describe("Instead of libvirt: the unix socket of QEMU's own monitor (QMP)."),
      guestAgent: path(references)
        .nullable()
        .default(null)
        .describe('With qmp: the unix socket of the guest agent. Empty: the guest is never frozen.'),
      scratch: path(references)
        .prefault('/var/lib/failkit-scratch')
        .describe('Folder for what the guest overwrites during a run. QEMU must be able to write there.'),
      scratchFreeMiBMin: z
        .int()
        .min(1)
        .default(1024)
        .describe("A run ends, and the guest goes on, when the scratch folder's file system has less than this free."),
      exclude: z
        .array(text(100))
        .max(256)
        .prefault([])
        .describe('Disks that are left out, by label: points are partial.'),
      attachments: attachmentPaths(references),
    })
    .superRefine(({ libvirt, qmp, domain, guestAgent }, context) => {
      const refuse = (key: string, message: string): void => context.addIssue({ code: 'custom', path: [key], message });
      if (libvirt === undefined && qmp === undefined) refuse('libvirt', 'is missing: give libvirt, or qmp');
      if (libvirt !== undefined && qmp !== undefined) refuse('qmp', 'is there besides libvirt: give one of the two');
      if (qmp !== undefined && domain !== null) refuse('domain', 'is for libvirt');
      if (libvirt !== undefined && guestAgent !== null)
        refuse('guestAgent', 'is for qmp: libvirt knows the guest agent');
    })
    .transform(({ scratchFreeMiBMin, ...rest }) => ({ ...rest, scratchFreeBytesMin: scratchFreeMiBMin * mebibyte }));
}

function attachmentPaths(references: References) {
  return z.array(path(references)).max(32).prefault([]).describe('Files kept with each point: UEFI variables, …');
}

function nbdTls(references: References) {
  return z
    .strictObject({
      caFile: path(references).nullable().default(null).describe('PEM file of a private certificate authority.'),
      certificateFile: path(references)
        .nullable()
        .default(null)
        .describe('Our certificate, where the server asks for it.'),
      keyFile: path(references).nullable().default(null).describe('Its private key.'),
    })
    .prefault({})
    .describe('For nbds: addresses.');
}

function refuseImpossibleDisk(
  disk: {
    readonly path?: string | undefined;
    readonly nbd?: string | undefined;
    readonly format?: string | undefined;
    readonly tracking: string;
  },
  context: z.RefinementCtx,
): void {
  const refuse = (key: string, message: string): void => context.addIssue({ code: 'custom', path: [key], message });
  if (disk.path === undefined && disk.nbd === undefined) refuse('path', 'is missing: give a path, or an nbd address');
  if (disk.path !== undefined && disk.nbd !== undefined) refuse('nbd', 'is there besides a path: give one of the two');
  if (disk.nbd !== undefined && (disk.format ?? 'raw') !== 'raw')
    refuse('format', 'is for files: an export is always raw');
  if (disk.tracking !== 'none' && disk.format !== 'qcow2')
    refuse('tracking', 'needs format: qcow2, for only such images keep bitmaps');
}

/** Checked here, so that a slip of the pen is met before a run. */
function nbdAddress() {
  return z.string().superRefine((typed, context) => {
    try {
      parseNbdUri(typed);
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'is no NBD URI' });
    }
  });
}

function refuseTwins(disks: readonly ImageDisk[], context: z.RefinementCtx) {
  const refuse = (key: string, values: readonly string[]): void => {
    for (const [index, value] of repeated(values))
      context.addIssue({ code: 'custom', path: [index, key], message: `another disk has the same ${key}: ${value}` });
  };
  refuse(
    'label',
    disks.map(({ label }) => label),
  );
  refuse('path', disks.map(placeOf));
}

/** Each value that occurred earlier in the list, with its place. */
function repeated(values: readonly string[]): readonly (readonly [number, string])[] {
  return [...values.entries()].filter(([index, value]) => values.indexOf(value) < index);
}

function limits() {
  const speed = () => z.number().positive().max(1_000_000).nullable().default(null);
  return z
    .strictObject({
      uploadMbitPerSecond: speed().describe('Empty: as fast as it goes.'),
      downloadMbitPerSecond: speed(),
      readMiBPerSecond: z
        .number()
        .positive()
        .max(1_000_000)
        .nullable()
        .default(null)
        .describe('From the disks of a machine, so that those who use the storage do not suffer.'),
      inFlight: z.int().min(1).max(64).default(8).describe('Requests to the store at one time.'),
      workers: z
        .int()
        .min(1)
        .max(256)
        .nullable()
        .default(null)
        .describe('Threads that compress and seal. Empty: one per core, as far as `memoryMiB` goes.'),
      memoryMiB: z.int().min(128).max(65_536).default(512).describe('For the whole service.'),
    })
    .prefault({})
    .transform(({ uploadMbitPerSecond, downloadMbitPerSecond, readMiBPerSecond, memoryMiB, ...rest }) => ({
      ...rest,
      uploadBytesPerSecond: bytesPerSecond(uploadMbitPerSecond),
      downloadBytesPerSecond: bytesPerSecond(downloadMbitPerSecond),
      readBytesPerSecond: readMiBPerSecond === null ? null : readMiBPerSecond * mebibyte,
      memoryBytes: memoryMiB * mebibyte,
    }));
}

function bytesPerSecond(megabits: number | null): number | null {
  return megabits === null ? null : Math.round(megabits * bytesPerMegabit);
}

function logging(references: References) {
  return z
    .strictObject({
      level: z.enum(logLevels).default('warn'),
      file: path(references).nullable().default(null).describe('JSON lines go here. Empty: to standard error.'),
    })
    .prefault({});
}
