import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, open, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { type ByteCounter, startByteCounter } from '../peers/byte-counter.ts';
import { minioNeeds, type S3Peer, startMinio } from '../peers/s3.ts';
import { type FailkitProcess, runFailkit, startFailkit } from './failkit-process.ts';

const needs = await minioNeeds();
const MiB = 2 ** 20;
const diskBytes = 256 * MiB;
/** A change has to be felt by then. */
const heldWithinMs = 2_000;
const measuredMs = 3_000;

/** Mbit/s, in that order: lower, higher, none at all. */
const rates = [32, 8, 48] as const;
/** The steps are far apart; how well a rate is kept is measured elsewhere, where fewer processes take part. */
const [shareMin, shareMax] = [0.75, 1.25];

describe.skipIf(needs !== null)(`the limits of a running command${needs === null ? '' : ` (${needs})`}`, () => {
  let peer: S3Peer;
  let folder: string;
  let wire: ByteCounter;
  let bucket: string;
  const options = () => ({
    folder,
    environment: { S3_ACCESS_KEY: peer.accessKeyId, S3_SECRET: peer.secretAccessKey.reveal() },
  });

  beforeAll(async () => {
    peer = await startMinio();
    // What is measured is the network; disks have moods.
    const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
    folder = await mkdtemp(join(base, 'failkit-changed-limits-'));
    wire = await startByteCounter(Number(new URL(peer.endpoint).port));
    bucket = await peer.createBucket();
    await makeDisk(join(folder, 'disk.raw'));
    await configure({});
    await expectOk(['init', '--kit', 'kit']);
  });
  afterAll(async () => {
    await wire?.[Symbol.asyncDispose]();
    await peer?.stop();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  async function configure(limits: object): Promise<void> {
    const accessKey = {
      from: 'access-key',
      accessKeyId: `\${env:S3_ACCESS_KEY}`,
      secretAccessKey: `\${env:S3_SECRET}`,
    };
    const repository = { target: 's3', bucket, region: peer.region, endpoint: wire.endpoint, credentials: accessKey };
    const disks = [{ label: 'system', path: 'disk.raw' }];
    const config = {
      repository,
      keys: { provider: 'local-key', file: 'local.key' },
      state: 'state',
      compression: { level: 0 },
      machines: [{ name: 'web-1', source: { type: 'image', disks } }],
      limits,
    };
    await writeFile(join(folder, 'new.yaml'), stringify(config));
    await rename(join(folder, 'new.yaml'), join(folder, 'failkit.yaml'));
  }

  async function expectOk(args: readonly string[]): Promise<void> {
    const { exitCode, stderr } = await runFailkit(args, options());
    expect([exitCode, stderr]).toEqual([0, expect.anything()]);
  }

  /** Share of the rate that went over the wire, beginning when a change has to be felt. */
  async function shareOf(mbit: number, count: () => number): Promise<number> {
    await sleep(heldWithinMs);
    const [before, began] = [count(), performance.now()];
    await sleep(measuredMs);
    return ((count() - before) * 8) / (mbit * 1000 * (performance.now() - began));
  }

  async function followsChanges(process: FailkitProcess, setting: string, count: () => number): Promise<void> {
    await Promise.race([moves(count), process.ended.then(endedTooEarly)]);
    process.kill('SIGHUP');
    for (const mbit of rates) {
      await configure({ [setting]: mbit });
      const share = await shareOf(mbit, count);
      console.log(`${setting} ${mbit}: ${share.toFixed(3)} of it`);
      expect(share).toBeGreaterThan(shareMin);
      expect(share).toBeLessThan(shareMax);
    }
    await configure({ [setting]: 'none at all' });
    expect(await shareOf(rates[2], count)).toBeGreaterThan(shareMin);
    const before = count();
    await configure({});
    await sleep(heldWithinMs);
    const leftBytes = diskBytes - before;
    const ended = await Promise.race([process.ended, sleep((leftBytes * 8) / (rates[2] * 1000)).then(() => null)]);
    // At the last rate it would have taken so long for what was left; without any it is over by then.
    expect(ended?.exitCode).toBe(0);
    const { stderr } = await process.ended;
    // The signal: nothing had changed by then.
    expect(stderr.match(/the limits stay as they are: /g)).toHaveLength(1);
    expect(stderr.match(/the limits are now/g)).toHaveLength(rates.length + 1);
    expect(stderr.match(/the limits stay as they are, for the configuration can't be used/g)).toHaveLength(1);
  }

  it('change while a seed sends, each within two seconds, and a bad edit changes nothing', async () => {
    await configure({ uploadMbitPerSecond: 16 });
    const process = startFailkit(['seed'], options());
    await endedAfter(
      process,
      followsChanges(process, 'uploadMbitPerSecond', () => wire.sentBytes),
    );
  });

  it('change while a restore fetches', async () => {
    await configure({ downloadMbitPerSecond: 16 });
    const process = startFailkit(['restore', 'web-1', '--to', 'restored'], options());
    await endedAfter(
      process,
      followsChanges(process, 'downloadMbitPerSecond', () => wire.receivedBytes),
    );
  });
});

/** Nothing is left running, whatever the test found. */
async function endedAfter(process: FailkitProcess, test: Promise<void>): Promise<void> {
  try {
    await test;
  } finally {
    process.kill('SIGKILL');
    await process.ended;
  }
}

function endedTooEarly({ exitCode, stderr }: { readonly exitCode: number | null; readonly stderr: string }): never {
  throw new Error(`ended with ${exitCode} before anything moved: ${stderr.slice(-1000)}`);
}

/** Waits until segments are on their way: opening a repository takes a few kilobytes. */
async function moves(count: () => number): Promise<void> {
  const before = count();
  while (count() - before < MiB) await sleep(50);
}

/** Does not compress. */
async function makeDisk(path: string): Promise<void> {
  await using file = await open(path, 'w');
  for (let at = 0; at < diskBytes; at += 16 * MiB) await file.write(randomBytes(16 * MiB), 0, 16 * MiB, at);
}
