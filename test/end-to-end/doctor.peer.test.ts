import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Finding } from '../../agent/doctor/finding.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from './peers.ts';
import { machineName, makeSite, type Site, type SitePeers } from './site.ts';

/** What doctor and status make of a real bucket and a real KMS, and of what is wrong with them. */

const needs = await endToEndNeeds();

describe.skipIf(needs !== null)(needs ?? 'doctor and status, with a bucket and a KMS', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let site: Site;
  let secrets: readonly string[];
  beforeAll(async () => {
    servers = await startPeers({ enforceIam: true });
    ({ peers } = await servers.place());
    site = await makeSite(peers);
    secrets = [peers.s3.secretAccessKey.reveal(), peers.kms.credentials.secretAccessKey.reveal()];
    const made = await site.failkit('init', '--kit', join(site.folder, 'kit'));
    expect(made.exitCode, made.stderr).toBe(0);
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  it('finds nothing where all is well', async () => {
    const { exitCode, findings } = await doctor();
    expect(findings.filter(({ outcome }) => outcome !== 'ok' && outcome !== 'warning')).toEqual([]);
    expect(findings.map(({ check }) => check)).toEqual(
      expect.arrayContaining(['store', 'puts', 'data keys', 'unwrapping']),
    );
    expect(exitCode).toBe(0);
  });

  it('knows whether a write-only host may decrypt', async () => {
    await site.configure({ access: 'write-only' });
    expect((await find('unwrapping')).outcome).toBe('warning');
    const may = await userWith(['kms:GenerateDataKey']);
    expect(await find('unwrapping', may)).toMatchObject({
      outcome: 'ok',
      what: expect.stringContaining('may not unwrap'),
    });
    await site.configure();
    expect(await find('unwrapping', may)).toMatchObject({ outcome: 'failed', code: 'KEY_DENIED', exitCode: 5 });
    expect(await find('data keys', await userWith(['kms:Decrypt']))).toMatchObject({ outcome: 'failed', exitCode: 5 });
  });

  it('tells the store from the KMS when one of them refuses', async () => {
    const wrong = { S3_SECRET: `${secrets[0]}x` };
    const { exitCode, findings } = await doctor(wrong);
    expect(exitCode).toBe(4);
    expect(findings).toContainEqual(
      expect.objectContaining({ check: 'store', outcome: 'failed', code: 'ACCESS_DENIED' }),
    );
    expect(findings).toContainEqual(expect.objectContaining({ check: 'puts', outcome: 'skipped' }));
    expect(findings).toContainEqual(expect.objectContaining({ check: 'unwrapping', outcome: 'ok' }));
  });

  it('status asks no KMS', async () => {
    expect((await site.failkit('seed')).exitCode).toBe(0);
    const nobody = { KMS_ACCESS_KEY: 'AKIAUNKNOWN', KMS_SECRET: 'unknown' };
    Object.assign(site.environment, nobody);
    const { exitCode, stdout, stderr } = await site.failkit('status', '--max-rpo', '1h', '--json');
    expect(exitCode, stderr).toBe(0);
    expect(JSON.parse(stdout).machines).toMatchObject([
      {
        machine: machineName,
        points: 1,
        rpoCountsFrom: 'snapshot',
        consistency: 'crash-consistent',
        freshness: 'same',
      },
    ]);
    rmSync(join(site.folder, 'state', 'machines'), { recursive: true });
    expect((await site.failkit('status', '--max-rpo', '1h')).exitCode).toBe(6);
  });

  async function doctor(environment: Readonly<Record<string, string>> = {}) {
    const before = { ...site.environment };
    Object.assign(site.environment, environment);
    const { exitCode, stdout, stderr } = await site.failkit('doctor', '--json');
    Object.assign(site.environment, before);
    for (const secret of secrets) expect(stdout + stderr).not.toContain(secret);
    return { exitCode, findings: (JSON.parse(stdout) as { findings: Finding[] }).findings };
  }

  async function find(check: string, environment: Readonly<Record<string, string>> = {}): Promise<Finding> {
    const found = (await doctor(environment)).findings.find((finding) => finding.check === check);
    if (found === undefined) throw new Error(`doctor has no check ${check}`);
    return found;
  }

  /** Credentials for the KMS with these rights on the site's key. */
  async function userWith(actions: readonly string[]): Promise<Readonly<Record<string, string>>> {
    const UserName = `user-${actions.join('-').replaceAll(':', '-')}`;
    const Statement = [{ Effect: 'Allow', Action: actions, Resource: peers.keyId }];
    const PolicyDocument = JSON.stringify({ Version: '2012-10-17', Statement });
    await servers.kms.iam('CreateUser', { UserName });
    await servers.kms.iam('PutUserPolicy', { UserName, PolicyName: 'p', PolicyDocument });
    const xml = await servers.kms.iam('CreateAccessKey', { UserName });
    const field = (tag: string) => new RegExp(`<${tag}>([^<]+)<`).exec(xml)?.[1] ?? '';
    return { KMS_ACCESS_KEY: field('AccessKeyId'), KMS_SECRET: field('SecretAccessKey') };
  }
});
