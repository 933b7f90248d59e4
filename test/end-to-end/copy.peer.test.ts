import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { BucketView } from './bucket.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from './peers.ts';
import {
  changeDisk,
  machineName,
  makeSite,
  type Settings,
  type Site,
  type SitePeers,
  settingsOf,
  sha256OfDisks,
  sha256OfRestored,
} from './site.ts';

/** A first copy onto a disk that is carried to the other side, and a second bucket. */

const needs = await endToEndNeeds();

interface Copied {
  readonly machines: readonly {
    readonly segments: number;
    readonly presentSegments: number;
    readonly points: number;
  }[];
}

describe.skipIf(needs !== null)(needs ?? 'a replica that is copied', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let bucket: BucketView;
  let site: Site;
  let onDisk: Settings;
  const file = (name: string): string => join(site.folder, name);
  beforeAll(async () => {
    servers = await startPeers();
    ({ peers, bucket } = await servers.place());
    site = await makeSite(peers);
    onDisk = { repository: { target: 'filesystem', directory: file('carried') } };
    const inBucket = settingsOf(peers, (label) => site.diskFile(label));
    await writeFile(file('bucket.yaml'), stringify(inBucket));
    await writeFile(file('disk.yaml'), stringify({ ...inBucket, ...onDisk }));
    await site.configure(onDisk);
    await expectOk('init', '--kit', file('kit'));
    await expectOk('seed');
    await changeDisk(site, 'data', 1);
    await expectOk('sync');
  });
  afterAll(async () => {
    bucket?.[Symbol.dispose]();
    await site?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  async function expectOk(...args: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await site.failkit(...args);
    expect(exitCode, stderr).toBe(0);
    return stdout;
  }

  async function copyTo(name: string): Promise<Copied['machines'][number]> {
    const { machines }: Copied = JSON.parse(await expectOk('copy', '--to', file(name), '--json'));
    const [machine] = machines;
    if (machine === undefined) throw new Error('no machine was copied');
    return machine;
  }

  it('killed in the middle, it goes on; without any key', async () => {
    servers.kmsWire.forget();
    const killed = site.start('copy', '--to', file('bucket.yaml'));
    await expect.poll(async () => (await bucket.keys()).length, { timeout: 30_000, interval: 5 }).toBeGreaterThan(3);
    killed.kill('SIGKILL');
    await killed.ended;
    const { points } = await copyTo('bucket.yaml');
    expect(points).toBe(2);
    expect(await copyTo('bucket.yaml')).toMatchObject({ segments: 0, points: 2 });
    expect(servers.kmsWire.seen, 'nobody asked the key service').toEqual([]);
  });

  it('the host goes on in the bucket where it was on the disk', async () => {
    await rm(file('carried'), { recursive: true });
    await site.configure();
    await changeDisk(site, 'system', 2);
    const { machines } = JSON.parse(await expectOk('sync', '--json'));
    // One stretch of changed blocks, and nothing else again.
    expect(machines[0].changedBytes).toBe(12 * 64 * 1024);
    await expectOk('restore', machineName, '--to', file('out'));
    expect(await sha256OfRestored(file('out'))).toEqual(await sha256OfDisks(site));
  });

  it('and what came since is copied the other way', async () => {
    const { points, segments } = await copyTo('disk.yaml');
    expect(points).toBe(3);
    expect(segments).toBeGreaterThan(0);
    await site.configure(onDisk);
    await expectOk('verify');
    await expectOk('restore', machineName, '--to', file('out-2'));
    expect(await sha256OfRestored(file('out-2'))).toEqual(await sha256OfDisks(site));
  });

  it('says what is wrong with the destination', async () => {
    const missing = await site.failkit('copy', '--to', file('none.yaml'));
    expect(missing.exitCode).toBe(2);
    expect(missing.stderr).toMatch(/none\.yaml: there is no such file/);
    const same = await site.failkit('copy', '--to', file('disk.yaml'), 'nobody');
    expect(same.stderr).toMatch(/this host does not know the id of nobody/);
  });
});
