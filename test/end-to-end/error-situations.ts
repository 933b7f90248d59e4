/** How each row of the error table is brought about. */
import { chmod, copyFile, cp, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DisableKeyCommand, EnableKeyCommand } from '@aws-sdk/client-kms';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { canaries } from '../canary.ts';
import { startMinio, startVersityGw, versityGwNeeds } from '../peers/s3.ts';
import { freePort } from '../peers/server-process.ts';
import type { BucketView } from './bucket.ts';
import type { ErrorRowName } from './error-rows.ts';
import type { EndToEndPeers } from './peers.ts';
import {
  type DiskLabel,
  diskLabels,
  machineName,
  type Settings,
  type Site,
  type SitePeers,
  settingsOf,
} from './site.ts';
import { attachFailingDisk, loopNeeds, mountNeeds, mountSmallDisk } from './small-disk.ts';

/** A site with one seeded machine, and the servers around it. */
export interface Laboratory {
  readonly servers: EndToEndPeers;
  readonly peers: SitePeers;
  readonly bucket: BucketView;
  readonly site: Site;
}

export interface Situation {
  readonly args: readonly string[];
  readonly settings?: Settings;
  readonly environment?: Readonly<Record<string, string>>;
  /** Paths that must not be there afterwards. */
  readonly absent?: readonly string[];
  /** The same command succeeds once this is undone: it was begun, and nothing of it is in the way. */
  readonly succeedsLater?: boolean;
  readonly undo?: () => PromiseLike<unknown>;
}

export interface Arrangement {
  readonly needs?: () => Promise<string | null>;
  arrange(laboratory: Laboratory): Promise<Situation>;
}

const when = (arrange: Arrangement['arrange'], needs?: Arrangement['needs']): Arrangement => ({
  arrange,
  ...(needs && { needs }),
});
const sync = ['sync'] as const;

type Group = Readonly<Record<string, unknown>>;

/** The site's own settings with some of a group's exchanged. */
function exchanged({ peers, site }: Laboratory, group: 'repository' | 'keys', changes: Group): Settings {
  const settings = settingsOf(peers, site.diskFile) as Readonly<Record<string, Group>>;
  return { [group]: { ...settings[group], ...changes } };
}

const withRepository = (changes: Group) =>
  when(async (laboratory) => ({ args: sync, settings: exchanged(laboratory, 'repository', changes) }));

const withClock = (offMs: number) =>
  when(async () => ({
    args: sync,
    environment: {
      NODE_OPTIONS: `--import=${join(import.meta.dirname, 'clock-off.ts')}`,
      FAILKIT_TEST_CLOCK_OFF_MS: String(offMs),
    },
  }));

const hourMs = 3_600_000;

/** Another machine, whose first disk is large enough that the second one is not yet read when a segment is sent. */
async function newMachine({ site }: Laboratory, name: string) {
  const file = (label: DiskLabel) => join(site.folder, `disks/${name}-${label}.raw`);
  for (const label of diskLabels) await copyFile(site.diskFile(label), file(label));
  const settings = (pathOf: (label: DiskLabel) => string): Settings => ({
    machines: [{ name, source: { type: 'image', disks: diskLabels.map((label) => ({ label, path: pathOf(label) })) } }],
    segmentMiB: 4,
    limits: { inFlight: 1, workers: 1 },
  });
  const heal = () => copyFile(site.diskFile('data'), file('data'));
  return { file, settings, heal };
}

/** `harm` happens when the first segment is on its way. */
function duringTheSeed({ servers }: Laboratory, harm: () => Promise<unknown>): void {
  let done = false;
  servers.wire.beforeEach(async ({ method, path }) => {
    if (done || method !== 'PUT' || !path.includes('/segments/')) return;
    done = true;
    await harm();
  });
}

/** Of the machine that every point was made of; it is in use until the disk's last block has changed. */
async function firstSegment({ bucket, site }: Laboratory): Promise<{ key: string; bytes: Uint8Array }> {
  const listed = await site.failkit('points', machineName, '--json');
  const { machines } = listed.json<{ machines: { machineId: string }[] }>();
  const own = `/${machines[0]?.machineId}/segments/`;
  const key = (await bucket.keys()).find((each) => each.includes(own));
  if (key === undefined) throw new Error('the bucket holds no segment');
  return { key, bytes: await bucket.read(key) };
}

async function fileIn(site: Site, name: string, content: string): Promise<string> {
  const path = join(site.folder, name);
  await writeFile(path, content);
  return path;
}

function restoreTo({ site }: Laboratory, name: string, ...more: string[]) {
  const to = join(site.folder, name);
  return { args: ['restore', machineName, '--to', to, ...more], absent: [join(to, 'data.raw')] };
}

export const situations: Readonly<Record<ErrorRowName, Arrangement>> = {
  misspeltKey: when(async () => ({ args: sync, settings: { stat: 'state' } })),
  noConfig: when(async ({ site }) => ({ args: [...sync, '--config', join(site.folder, 'none.yaml')] })),
  secretNotSet: when(async () => ({ args: sync, environment: { S3_SECRET: '' } })),
  fingerprintMistyped: when(async ({ site }) => {
    const pinned = (await readFile(join(site.folder, 'state/root-fingerprint'), 'utf8')).trim();
    return { args: sync, settings: { rootFingerprint: pinned.slice(0, -1) } };
  }),
  machineUnknown: when(async () => ({ args: ['sync', 'web-9'] })),
  seedAgain: when(async () => ({ args: ['seed'] })),
  neverSeeded: when(async (laboratory) => {
    const { settings, file } = await newMachine(laboratory, 'never-seeded');
    return { args: sync, settings: settings(file) };
  }),
  pointMalformed: when(async (laboratory) => restoreTo(laboratory, 'noon', '--point', 'noon')),

  requestMissing: when(async ({ site }) => {
    const rootKey = join(site.folder, 'kit/root.key');
    return { args: ['root', 'certify', '--root-key', rootKey, join(site.folder, 'none.pub')] };
  }),

  diskMissing: when(async (laboratory) => {
    const { settings } = await newMachine(laboratory, machineName);
    return { args: sync, settings: settings((label) => join(laboratory.site.folder, `moved/${label}.raw`)) };
  }),
  diskTruncated: when(async (laboratory) => {
    const { file, settings, heal } = await newMachine(laboratory, 'truncated');
    duringTheSeed(laboratory, () => truncate(file('data'), 100_000));
    return { args: ['seed'], settings: settings(file), succeedsLater: true, undo: heal };
  }),
  diskFails: when(async (laboratory) => {
    const { file, settings, heal } = await newMachine(laboratory, 'failing');
    const disk = await attachFailingDisk(file('data'));
    duringTheSeed(laboratory, disk.fail);
    const path = (label: DiskLabel) => (label === 'data' ? disk.device : file(label));
    const undo = async () => {
      await disk[Symbol.asyncDispose]();
      await heal();
    };
    return { args: ['seed'], settings: settings(path), undo };
  }, loopNeeds),
  diskWritten: when(async (laboratory) => {
    const { file, settings, heal } = await newMachine(laboratory, 'written');
    duringTheSeed(laboratory, async () => {
      await using disk = await open(file('data'), 'r+');
      await disk.write(Buffer.from('meanwhile'), 0, 9, 4_096);
    });
    return { args: ['seed'], settings: settings(file), succeedsLater: true, undo: heal };
  }),
  restoreFull: when(async () => {
    const disk = await mountSmallDisk(4);
    const undo = () => disk[Symbol.asyncDispose]();
    return { args: ['restore', machineName, '--to', disk.folder], absent: [join(disk.folder, 'system.raw')], undo };
  }, mountNeeds),
  restoreIntoFile: when(async ({ site }) => {
    const to = await fileIn(site, 'a-file', 'content');
    return { args: ['restore', machineName, '--to', to] };
  }),

  wrongSecret: when(async () => ({ args: sync, environment: { S3_SECRET: canaries().token } })),
  unknownAccessKey: when(async () => ({ args: sync, environment: { S3_ACCESS_KEY: 'nobody' } })),
  wrongRegion: withRepository({ region: 'us-west-2' }),
  bucketMissing: withRepository({ bucket: 'no-such-bucket' }),
  endpointAway: when(async (laboratory) => {
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    return { args: sync, settings: exchanged(laboratory, 'repository', { endpoint }) };
  }),
  tlsUntrusted: when(async (laboratory) => {
    const server = await startMinio({ tls: true });
    const { endpoint } = server;
    return { args: sync, settings: exchanged(laboratory, 'repository', { endpoint }), undo: () => server.stop() };
  }),
  caFileMissing: withRepository({ caFile: 'none.pem' }),
  clockAhead: withClock(hourMs),
  clockBehind: withClock(-hourMs),
  clockTenMinutes: withClock(hourMs / 6),
  notAtomic: when(async (laboratory) => {
    const server = await startVersityGw();
    const bucket = await server.createBucket();
    const kit = join(laboratory.site.folder, 'kit-not-atomic');
    const settings = exchanged(laboratory, 'repository', { endpoint: server.endpoint, bucket });
    return { args: ['init', '--kit', kit], settings, absent: [kit], undo: () => server.stop() };
  }, versityGwNeeds),

  kmsDenies: when(async ({ servers }) => {
    await servers.kms.iam('CreateUser', { UserName: 'nothing' });
    const xml = await servers.kms.iam('CreateAccessKey', { UserName: 'nothing' });
    const field = (tag: string) => new RegExp(`<${tag}>([^<]+)<`).exec(xml)?.[1] ?? '';
    const environment = { KMS_ACCESS_KEY: field('AccessKeyId'), KMS_SECRET: field('SecretAccessKey') };
    return { args: sync, environment };
  }),
  kmsKeyDisabled: when(async ({ servers, peers }) => {
    const KeyId = peers.keyId;
    await servers.kms.admin.send(new DisableKeyCommand({ KeyId }));
    return { args: sync, undo: () => servers.kms.admin.send(new EnableKeyCommand({ KeyId })) };
  }),
  kmsKeyMissing: when(async (laboratory) => {
    const keyId = laboratory.peers.keyId.replace(/[^/]+$/, '00000000-0000-4000-8000-000000000000');
    return { args: sync, settings: exchanged(laboratory, 'keys', { keyId }) };
  }),
  kmsUnknownUser: when(async () => ({ args: sync, environment: { KMS_ACCESS_KEY: 'AKIAQQQQQQQQQQQQQQQQ' } })),
  kmsAway: when(async (laboratory) => {
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    return { args: ['restore', machineName, '--to', 'never'], settings: exchanged(laboratory, 'keys', { endpoint }) };
  }),
  keyFileOpen: when(async ({ site }) => {
    const copy = join(site.folder, 'open-root.key');
    await copyFile(join(site.folder, 'kit/root.key'), copy);
    await chmod(copy, 0o644);
    const kit = join(site.folder, 'kit-from-open-key');
    return { args: ['root', 'replace', '--root-key', copy, '--kit', kit], absent: [kit] };
  }),

  wrongRoot: when(async () => ({
    args: sync,
    settings: { rootFingerprint: rootFingerprint(SigningKey.generate().publicKey) },
  })),
  repositoryMissing: withRepository({ prefix: 'replicas/paris' }),
  repositoryExists: when(async ({ site }) => {
    const kit = join(site.folder, 'second-kit');
    return { args: ['init', '--kit', kit], absent: [kit] };
  }),
  replicaUnknown: when(async ({ site }) => ({ args: ['restore', 'web-9', '--to', join(site.folder, 'web-9')] })),
  pointUnknown: when(async (laboratory) => restoreTo(laboratory, 'no-point', '--point', '9999')),
  rolledBack: when(async () => ({ args: ['points', machineName, '--expect-head', `9999:${'ab'.repeat(32)}`] })),
  stateBusy: when(async ({ servers, site }) => {
    const held = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    servers.wire.beforeEach(({ method, path }) => {
      if (method !== 'PUT' || !path.includes('/chain/')) return undefined;
      reached.resolve();
      return held.promise;
    });
    const other = site.start('sync');
    await reached.promise;
    const undo = async () => {
      held.resolve();
      const { exitCode, stderr } = await other.ended;
      if (exitCode !== 0) throw new Error(`the run that held the state failed: ${stderr}`);
    };
    return { args: sync, undo };
  }),
  stateFull: when(async ({ site }) => {
    const disk = await mountSmallDisk(4);
    await cp(join(site.folder, 'state'), join(disk.folder, 'state'), { recursive: true });
    await disk.fill();
    return { args: sync, settings: { state: join(disk.folder, 'state') }, undo: () => disk[Symbol.asyncDispose]() };
  }, mountNeeds),
  stateFullFromStart: when(async (laboratory) => {
    const pinned = await readFile(join(laboratory.site.folder, 'state/root-fingerprint'), 'utf8');
    const disk = await mountSmallDisk(1);
    await disk.fill();
    const { settings, file } = await newMachine(laboratory, 'no-room');
    const state = join(disk.folder, 'state');
    return {
      args: ['seed'],
      settings: { ...settings(file), state, rootFingerprint: pinned.trim() },
      undo: () => disk[Symbol.asyncDispose](),
    };
  }, mountNeeds),
  stateIsFile: when(async ({ site }) => ({
    args: sync,
    settings: {
      state: await fileIn(site, 'state-file', 'content'),
      rootFingerprint: (await readFile(join(site.folder, 'state/root-fingerprint'), 'utf8')).trim(),
    },
  })),

  segmentMissing: when(async (laboratory) => {
    const { key, bytes } = await firstSegment(laboratory);
    await laboratory.bucket.remove(key);
    return { ...restoreTo(laboratory, 'missing-segment'), undo: () => laboratory.bucket.write(key, bytes) };
  }),
  segmentDamaged: when(async (laboratory) => {
    const { key, bytes } = await firstSegment(laboratory);
    const damaged = Uint8Array.from(bytes);
    damaged[damaged.length >> 1] = (damaged[damaged.length >> 1] ?? 0) ^ 1;
    await laboratory.bucket.write(key, damaged);
    return { ...restoreTo(laboratory, 'damaged-segment'), undo: () => laboratory.bucket.write(key, bytes) };
  }),

  outputExists: when(async ({ site }) => {
    const to = await fileIn(site, 'existing.raw', 'content');
    return { args: ['restore', machineName, '--disk', 'data', '--to', to] };
  }),
  requestExists: when(async ({ site }) => ({
    args: ['root', 'request', await fileIn(site, 'existing.pub', 'content')],
  })),
  kitExists: when(async (laboratory) => ({
    args: ['init', '--kit', join(laboratory.site.folder, 'kit')],
    settings: exchanged(laboratory, 'repository', { prefix: 'replicas/rome' }),
  })),
};
