import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canaries } from '../canary.ts';
import type { BucketView } from './bucket.ts';
import { type Outcome, runFailkit } from './failkit-process.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from './peers.ts';
import {
  changeDisk,
  machineName,
  makeSite,
  type Site,
  type SitePeers,
  sha256OfDisks,
  sha256OfRestored,
} from './site.ts';

const needs = await endToEndNeeds();

interface PointsDocument {
  readonly machines: readonly {
    readonly name: string | null;
    readonly head: string;
    readonly points: readonly { readonly point: number; readonly consistency: string; readonly changedBytes: number }[];
  }[];
}

interface Published {
  readonly machines: readonly { readonly point: number; readonly changedBytes: number; readonly readBytes: number }[];
}

function succeeded(outcome: Outcome): Outcome {
  expect(outcome.stderr).not.toMatch(/failkit:/);
  expect(outcome.exitCode, outcome.stdout + outcome.stderr).toBe(0);
  return outcome;
}

const publishedBy = (outcome: Outcome) => {
  const [machine] = succeeded(outcome).json<Published>().machines;
  if (machine === undefined) throw new Error('no machine was protected');
  return machine;
};

describe.skipIf(needs !== null)(needs ?? 'a machine in a bucket, its keys in a KMS', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let bucket: BucketView;
  let site: Site;
  const contents = new Map<number, Awaited<ReturnType<typeof sha256OfDisks>>>();
  const pointNumbers = () => [...contents.keys()];
  beforeAll(async () => {
    servers = await startPeers();
    ({ peers, bucket } = await servers.place());
    site = await makeSite(peers);
  });
  afterAll(async () => {
    bucket?.[Symbol.dispose]();
    await site?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  it('init makes the repository below the prefix, and a kit', async () => {
    const { stdout } = succeeded(await site.failkit('init', '--kit', join(site.folder, 'kit')));
    expect(stdout).toMatch(/root fingerprint {2}fk-root-/);
    const keys = await bucket.keys();
    expect(keys).toContain('replicas/berlin/repository');
    expect(keys.filter((key) => !key.startsWith('replicas/berlin/'))).toEqual([]);
    expect(await readdir(join(site.folder, 'kit'))).toContain('restore.yaml');
  });

  it('seed, sync and resync publish one point each', async () => {
    const seeded = publishedBy(await site.failkit('seed', '--json'));
    contents.set(seeded.point, await sha256OfDisks(site));

    await changeDisk(site, 'data', 1);
    const synced = publishedBy(await site.failkit('sync', '--json'));
    expect(synced.changedBytes).toBe(12 * 64 * 1024);
    contents.set(synced.point, await sha256OfDisks(site));

    await changeDisk(site, 'system', 2);
    const resynced = publishedBy(await site.failkit('resync', machineName, '--json'));
    expect(resynced.changedBytes).toBe(12 * 64 * 1024);
    contents.set(resynced.point, await sha256OfDisks(site));
    expect(new Set(pointNumbers()).size).toBe(3);
  });

  it('points lists them, and what --expect-head takes', async () => {
    const listed = succeeded(await site.failkit('points', '--json')).json<PointsDocument>();
    const [machine] = listed.machines;
    expect(machine?.name).toBe(machineName);
    expect(machine?.points.map(({ point }) => point)).toEqual(pointNumbers());
    succeeded(await site.failkit('points', machineName, '--expect-head', machine?.head ?? ''));
    const { stdout } = succeeded(await site.failkit('points'));
    expect(stdout).toContain(machineName);
    expect(stdout).toContain('crash-consistent');
  });

  it('restore brings each point back, byte for byte', async () => {
    for (const [point, content] of contents) {
      const to = join(site.folder, `restored-${point}`);
      const outcome = succeeded(await site.failkit('restore', machineName, '--point', String(point), '--to', to));
      expect(outcome.stdout).toContain('every block checked');
      expect(await sha256OfRestored(to)).toEqual(content);
    }
  });

  it('the bucket holds no plaintext and no name', async () => {
    const secrets = [Buffer.from(canaries().plaintext), Buffer.from(machineName), Buffer.from('quick brown fox')];
    const keys = await bucket.keys();
    expect(keys.length).toBeGreaterThan(5);
    for (const key of keys) {
      const bytes = Buffer.from(await bucket.read(key));
      for (const secret of secrets) expect(bytes.includes(secret), key).toBe(false);
      expect(key).not.toContain(machineName);
    }
  });

  it('the kit, the bucket and its credentials are enough on another machine, with the KMS gone', async () => {
    await servers.kms.stop();
    const folder = join(site.folder, 'kit');
    // The kit knows no credentials: the operator adds them, here as the SDK's own environment variables.
    const environment = {
      AWS_ACCESS_KEY_ID: peers.s3.accessKeyId,
      AWS_SECRET_ACCESS_KEY: peers.s3.secretAccessKey.reveal(),
    };
    const failkit = (...args: string[]) => runFailkit(['--config', 'restore.yaml', ...args], { folder, environment });
    const listed = succeeded(await failkit('points', '--json')).json<PointsDocument>();
    expect(listed.machines[0]?.points.map(({ point }) => point)).toEqual(pointNumbers());
    succeeded(await failkit('restore', machineName, '--to', 'back'));
    expect(await sha256OfRestored(join(folder, 'back'))).toEqual(contents.get(pointNumbers().at(-1) ?? 0));
    const refused = await failkit('seed');
    expect(refused.exitCode).toBe(2);
  });
});
