import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SeenRequest } from '../peers/fault-proxy.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from './peers.ts';
import { changeDisk, makeSite, type Site } from './site.ts';

/** What a recovery point costs, counted on the wire in front of the real servers, and not by the agent itself. */

const needs = await endToEndNeeds();
const segmentBytes = 8 * 1024 * 1024;
const segmentsAndEntryMax = (uploadedBytes: number) => Math.ceil(uploadedBytes / segmentBytes) + 2;
const readsMax = 4;
/** Up to 64 entries are read back to the newest summary, whatever the chain's length. */
const openingMax = 80;

interface Cost {
  /** Requests until the tenure's `begin` entry was there: opening, probe, key record. */
  readonly before: readonly SeenRequest[];
  readonly puts: readonly SeenRequest[];
  readonly reads: readonly SeenRequest[];
  readonly kmsCalls: readonly string[];
  readonly uploadedBytes: number;
}

interface Published {
  readonly machines: readonly { readonly uploadedBytes: number; readonly point: number }[];
}

describe.skipIf(needs !== null)(needs ?? 'requests per recovery point', () => {
  let servers: EndToEndPeers;
  let site: Site;
  beforeAll(async () => {
    servers = await startPeers();
    const { peers } = await servers.place();
    site = await makeSite(peers);
    const made = await site.failkit('init', '--kit', join(site.folder, 'kit'));
    expect(made.exitCode, made.stderr).toBe(0);
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  async function costOf(...args: string[]): Promise<Cost> {
    servers.wire.forget();
    servers.kmsWire.forget();
    const outcome = await site.failkit(...args, '--json');
    expect(outcome.exitCode, outcome.stderr).toBe(0);
    const seen = [...servers.wire.seen];
    const begin = seen.findIndex(({ method, path }) => method === 'PUT' && path.includes('/chain/'));
    expect(begin).toBeGreaterThan(0);
    const inside = seen.slice(begin + 1);
    return {
      before: seen.slice(0, begin + 1),
      puts: inside.filter(({ method }) => method === 'PUT'),
      reads: inside.filter(({ method }) => method !== 'PUT'),
      kmsCalls: servers.kmsWire.seen.map(({ call }) => call.replace('TrentService.', '')),
      uploadedBytes: outcome.json<Published>().machines[0]?.uploadedBytes ?? 0,
    };
  }

  function expectFrugal({ puts, reads, kmsCalls, uploadedBytes }: Cost): void {
    const sent = puts.filter(({ path }) => path.includes('/segments/'));
    // What the agent says that it sent is what the store was given.
    expect(sent.reduce((sum, { bodyBytes }) => sum + bodyBytes, 0)).toBe(uploadedBytes);
    expect(puts.length).toBeLessThanOrEqual(segmentsAndEntryMax(uploadedBytes));
    expect(reads.length).toBeLessThanOrEqual(readsMax);
    expect(kmsCalls.length).toBeLessThanOrEqual(1);
    expect(new Set(puts.map(({ path }) => path)).size).toBe(puts.length);
  }

  it('a seed sends full segments and one entry, and asks the KMS once', async () => {
    const cost = await costOf('seed');
    expectFrugal(cost);
    expect(cost.uploadedBytes).toBeGreaterThan(16 * 1024 * 1024);
    expect(cost.kmsCalls).toEqual(['GenerateDataKey']);
  });

  it('a sync of a few blocks is one segment and one entry', async () => {
    await changeDisk(site, 'data', 1);
    const cost = await costOf('sync');
    expectFrugal(cost);
    expect(cost.puts.length).toBeLessThanOrEqual(2);
    expect(cost.kmsCalls).toEqual(['Decrypt']);
  });

  it('a sync of nothing is one entry', async () => {
    const cost = await costOf('sync');
    expectFrugal(cost);
    expect(cost.uploadedBytes).toBe(0);
    expect(cost.puts.length).toBe(1);
  });

  it('a resync is no dearer, and what comes before the tenure is bounded', async () => {
    await changeDisk(site, 'system', 2);
    const cost = await costOf('resync');
    expectFrugal(cost);
    expect(cost.before.length).toBeLessThanOrEqual(openingMax);
    const puts = cost.before.filter(({ method }) => method === 'PUT');
    // The probe that has to be refused, and the begin entry: the key epoch goes on.
    expect(puts.map(({ status }) => status)).toEqual([412, 200]);
  });

  it('listing points asks the KMS once, and restoring one, too', async () => {
    servers.kmsWire.forget();
    const listed = await site.failkit('points', '--json');
    expect(listed.exitCode, listed.stderr).toBe(0);
    expect(servers.kmsWire.seen.length).toBe(1);
    servers.kmsWire.forget();
    await mkdir(join(site.folder, 'out'));
    const restored = await site.failkit('restore', 'accounting-db', '--to', join(site.folder, 'out'), '--json');
    expect(restored.exitCode, restored.stderr).toBe(0);
    expect(servers.kmsWire.seen.length).toBe(1);
    expect((await readFile(join(site.folder, 'out/data.raw'))).length).toBeGreaterThan(0);
  });
});
