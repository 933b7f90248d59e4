import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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

/** Two agent hosts, one machine, one bucket: who may write is the root key's word, and only one of them does. */

const needs = await endToEndNeeds();

interface Refusal {
  readonly error: { readonly code: string; readonly message: string };
}

interface Trust {
  readonly rootFingerprint: string;
  readonly rootsReplaced: number;
  readonly agents: readonly { readonly keyId: string; readonly status: string; readonly thisHost: boolean }[];
}

describe.skipIf(needs !== null)(needs ?? 'a second agent host', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let first: Site;
  let second: Site;
  beforeAll(async () => {
    servers = await startPeers();
    ({ peers } = await servers.place());
    first = await makeSite(peers);
    second = await makeSite(peers, { disksOf: first });
    await succeeds(first, 'init', '--kit', join(first.folder, 'kit'));
    await succeeds(first, 'seed');
  });
  afterAll(async () => {
    await first?.[Symbol.asyncDispose]();
    await second?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });
  const rootKey = () => join(first.folder, 'kit/root.key');
  const trustSeenBy = async (site: Site) => (await succeeds(site, 'root', 'show', '--json')).json<Trust>();

  /** Without what a newer point changes about them: that the newest must be kept. */
  async function listedPoints(site: Site): Promise<readonly object[]> {
    const { machines } = JSON.parse((await succeeds(site, 'points', '--json')).stdout);
    return machines[0].points.map((point: object) => ({ ...point, mustKeep: null }));
  }

  async function succeeds(site: Site, ...args: string[]) {
    const outcome = await site.failkit(...args);
    expect(outcome.exitCode, outcome.stdout + outcome.stderr).toBe(0);
    return outcome;
  }

  async function refused(site: Site, ...args: string[]) {
    const outcome = await site.failkit(...args, '--json');
    return [outcome.exitCode, outcome.json<Refusal>().error.code];
  }

  it('has to be told the root fingerprint, and which machine it takes over', async () => {
    expect(await refused(second, 'points')).toEqual([2, 'CONFIG_INVALID']);
    const { rootFingerprint } = await trustSeenBy(first);
    await second.configure({ rootFingerprint });
    await succeeds(second, 'points');
    expect(await refused(second, 'sync')).toEqual([6, 'REPLICA_NOT_FOUND']);
    expect(await refused(second, 'seed')).toEqual([6, 'REPLICA_NOT_FOUND']);
  });

  it('may not publish before the root key has certified its key', async () => {
    expect(await refused(second, 'sync', '--take-over')).toEqual([6, 'AGENT_NOT_TRUSTED']);
    const request = join(second.folder, 'agent.pub');
    await succeeds(second, 'root', 'request', request);
    const certified = await succeeds(first, 'root', 'certify', '--root-key', rootKey(), request);
    expect(certified.stdout).toMatch(/agent key [0-9a-f]+ may publish from now on/);
    expect((await trustSeenBy(second)).agents.map(({ status }) => status)).toEqual(['certified', 'certified']);
  });

  it('takes the machine over, and the first host is fenced from then on', async () => {
    await changeDisk(first, 'data', 1);
    await succeeds(second, 'sync', '--take-over');
    expect(await refused(first, 'sync')).toEqual([6, 'FENCED']);
    await changeDisk(first, 'data', 2);
    await succeeds(second, 'sync');
    expect(await refused(first, 'sync')).toEqual([6, 'FENCED']);
    const to = join(second.folder, 'taken-over');
    await succeeds(second, 'restore', machineName, '--to', to);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(first));
  });

  it('is fenced itself when the first one takes the machine back', async () => {
    await succeeds(first, 'sync', '--take-over');
    expect(await refused(second, 'sync')).toEqual([6, 'FENCED']);
  });

  it('fences a run that is under way: it publishes nothing', async () => {
    await changeDisk(first, 'system', 3, 40);
    const before = (await succeeds(first, 'points', '--json')).stdout;
    let takenOver: Promise<unknown> | null = null;
    // The second host takes over while the first one's segments are on their way.
    servers.wire.beforeEach(async ({ method, path }) => {
      if (takenOver !== null || method !== 'PUT' || !path.includes('/segments/')) return;
      takenOver = succeeds(second, 'sync', '--take-over');
      await takenOver;
    });
    expect(await refused(first, 'sync')).toEqual([6, 'FENCED']);
    servers.wire.beforeEach(() => undefined);
    await takenOver;
    const points = (text: string) => JSON.parse(text).machines[0].points.length;
    expect(points((await succeeds(second, 'points', '--json')).stdout)).toBe(points(before) + 1);
    const to = join(second.folder, 'after-the-race');
    await succeeds(second, 'restore', machineName, '--to', to);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(first));
  });

  it('is shut out for good by a revocation; what it published stays', async () => {
    const own = (await trustSeenBy(second)).agents.find(({ thisHost }) => thisHost)?.keyId ?? '';
    const before = await listedPoints(first);
    await succeeds(first, 'root', 'revoke', '--root-key', rootKey(), own);
    expect(await refused(second, 'sync')).toEqual([6, 'AGENT_NOT_TRUSTED']);
    const request = join(second.folder, 'again.pub');
    await succeeds(second, 'root', 'request', request);
    expect((await refused(first, 'root', 'certify', '--root-key', rootKey(), request))[0]).toBe(2);
    await succeeds(first, 'sync', '--take-over');
    expect((await listedPoints(first)).slice(0, -1)).toEqual(before);
  });

  it('sees a replaced root as the successor of the one it pins; the old root key signs nothing any more', async () => {
    const { rootFingerprint } = await trustSeenBy(first);
    const newKit = join(first.folder, 'kit-2');
    await succeeds(first, 'root', 'replace', '--root-key', rootKey(), '--kit', newKit);
    const trust = await trustSeenBy(first);
    expect(trust.rootsReplaced).toBe(1);
    expect(trust.rootFingerprint).not.toBe(rootFingerprint);
    await succeeds(first, 'sync');
    const listed = await succeeds(second, 'points');
    expect(listed.stderr).toContain('the pinned root key was replaced');
    const [revoked] = trust.agents.filter(({ status }) => status === 'certified');
    expect(await refused(first, 'root', 'revoke', '--root-key', rootKey(), revoked?.keyId ?? '')).toEqual([
      6,
      'ROOT_MISMATCH',
    ]);
    expect(await readFile(join(newKit, 'RECOVERY-KIT.txt'), 'utf8')).toContain(trust.rootFingerprint);
  });

  it('begins anew with a new agent key that the new root certifies', async () => {
    await rm(join(second.folder, 'state'), { recursive: true });
    const request = join(second.folder, 'new.pub');
    await succeeds(second, 'root', 'request', request);
    await succeeds(first, 'root', 'certify', '--root-key', join(first.folder, 'kit-2/root.key'), request);
    await succeeds(second, 'sync', '--take-over');
    expect(await refused(first, 'sync')).toEqual([6, 'FENCED']);
  });
});
