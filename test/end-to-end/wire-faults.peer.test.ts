import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Fault, FaultRule } from '../peers/fault-proxy.ts';
import type { BucketView } from './bucket.ts';
import type { Outcome } from './failkit-process.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from './peers.ts';
import { changeDisk, machineName, makeSite, type Site, sha256OfDisks, sha256OfRestored } from './site.ts';

/** What goes wrong between the agent as a process and its bucket and KMS. `store-faults` has what happens in front of each kind of store. */

const needs = await endToEndNeeds();

const isSegmentPut: FaultRule['when'] = ({ method, path }) => method === 'PUT' && path.includes('/segments/');
const isSegmentGet: FaultRule['when'] = ({ method, path }) => method === 'GET' && path.includes('/segments/');
const isAny: FaultRule['when'] = () => true;

interface Refusal {
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null };
}

interface Points {
  readonly machines: readonly { readonly points: readonly { readonly point: number }[] }[];
}

describe.skipIf(needs !== null)(needs ?? 'faults on the wire', () => {
  let servers: EndToEndPeers;
  let bucket: BucketView;
  let site: Site;
  let round = 0;
  let published = 0;
  beforeAll(async () => {
    servers = await startPeers();
    const { peers, bucket: view } = await servers.place();
    bucket = view;
    site = await makeSite(peers);
    const made = await site.failkit('init', '--kit', join(site.folder, 'kit'));
    expect(made.exitCode, made.stderr).toBe(0);
  });
  afterAll(async () => {
    bucket?.[Symbol.dispose]();
    await site?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });
  afterEach(() => {
    servers.wire.heal();
    servers.kmsWire.heal();
  });

  const wasHit = (fault: Fault) => servers.wire.seen.filter((request) => request.fault === fault).length;

  async function changed(): Promise<void> {
    round++;
    await changeDisk(site, 'data', round, 30);
    servers.wire.forget();
  }

  async function survives(outcome: Outcome): Promise<void> {
    expect(outcome.exitCode, outcome.stdout + outcome.stderr).toBe(0);
    published++;
    await expectNewestIsTheDisk();
  }

  /** Also: nothing was published twice, nor anything that the run said it did not publish. */
  async function expectNewestIsTheDisk(): Promise<void> {
    servers.wire.heal();
    const listed = await site.failkit('points', machineName, '--json');
    expect(listed.exitCode, listed.stderr).toBe(0);
    const [machine] = listed.json<Points>().machines;
    expect(machine?.points.length).toBe(published);
    const to = join(site.folder, `restored-${round}`);
    const restored = await site.failkit('restore', machineName, '--to', to);
    expect(restored.exitCode, restored.stderr).toBe(0);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(site));
  }

  it('a seed survives uploads that break off, answers that get lost and bursts of SlowDown', async () => {
    servers.wire.hurt({ fault: 'reset-upload', when: isSegmentPut, times: 2 });
    servers.wire.hurt({ fault: 'lose-answer', when: isSegmentPut, times: 2 });
    servers.wire.hurt({ fault: 'slow-down', when: isAny, times: 3 });
    await survives(await site.failkit('seed'));
    expect([wasHit('reset-upload'), wasHit('lose-answer')]).toEqual([2, 2]);
  });

  it('a store that stops answering is given up after a minute of silence, and Ctrl-C does not wait for that', async () => {
    await changed();
    servers.wire.hurt({ fault: 'hang', when: isSegmentPut });
    const outcome = await site.failkit('sync');
    expect(wasHit('hang')).toBe(1);
    await survives(outcome);

    await changed();
    servers.wire.hurt({ fault: 'hang', when: isSegmentPut, times: 1_000 });
    const stopped = site.start('sync', '--json');
    while (wasHit('hang') === 0) await sleep(50);
    const pressed = performance.now();
    stopped.kill('SIGINT');
    const interrupted = await stopped.ended;
    expect(performance.now() - pressed).toBeLessThan(10_000);
    expect([interrupted.exitCode, interrupted.json<Refusal>().error.code]).toEqual([130, 'INTERRUPTED']);
    servers.wire.heal();
    await survives(await site.failkit('sync'));
  });

  it.each(['lose-answer', 'truncate', 'slow-down'] as const)(
    'a KMS call that ends in %s is made again',
    async (fault) => {
      await changed();
      servers.kmsWire.forget();
      servers.kmsWire.hurt({ fault, when: isAny });
      const outcome = await site.failkit('sync');
      expect(servers.kmsWire.seen.map((request) => request.fault)).toEqual([fault, null]);
      await survives(outcome);
    },
  );

  it('a flipped bit in a restore is caught, nothing takes the name of a whole disk, and the same command goes on', async () => {
    const to = join(site.folder, 'flipped');
    servers.wire.hurt({
      fault: 'flip-bit',
      when: (request) => isSegmentGet(request) && servers.wire.seen.filter(isSegmentGet).length >= 3,
      times: 1_000,
    });
    const failed = await site.failkit('restore', machineName, '--to', to, '--json');
    expect(failed.exitCode).toBe(7);
    const { error } = failed.json<Refusal>();
    expect(error.code).toMatch(/^(RECORD_TAMPERED|COMMITMENT_MISMATCH|PAGE_REPLACED|CONTENT_MISMATCH)$/);
    expect(error.message).toMatch(/machines\/[0-9a-f]{32}\/segments\//);
    expect(wasHit('flip-bit')).toBeGreaterThan(0);
    await expect(sha256OfRestored(to)).rejects.toThrow(/ENOENT/);

    servers.wire.heal();
    const restored = await site.failkit('restore', machineName, '--to', to);
    expect(restored.exitCode, restored.stderr).toBe(0);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(site));
  });

  it.each([
    ['repository', /repository$/],
    ['trust', /trust\/[0-9]+$/],
    ['chain', /chain\/[0-9]+$/],
  ] as const)('a flipped bit in the %s object is caught before anything is written', async (_, name) => {
    await changed();
    const before = await bucket.keys();
    servers.wire.hurt({
      fault: 'flip-bit',
      when: ({ method, path }) => method === 'GET' && name.test(path),
      times: 99,
    });
    const failed = await site.failkit('sync', '--json');
    expect(failed.exitCode).toBe(7);
    expect(failed.json<Refusal>().error.code).toMatch(/^(SIGNATURE_INVALID|FORMAT_INVALID)$/);
    expect(wasHit('flip-bit')).toBeGreaterThan(0);
    expect(await bucket.keys()).toEqual(before);
    servers.wire.heal();
    await survives(await site.failkit('sync'));
  });

  it('a key record that was misread once is read again, and costs nothing', async () => {
    await changed();
    servers.wire.hurt({
      fault: 'flip-bit',
      when: ({ method, path }) => method === 'GET' && /keys\//.test(path),
      times: 1,
    });
    const outcome = await site.failkit('sync', '--json');
    expect(wasHit('flip-bit')).toBe(1);
    expect(outcome.json<{ machines: { repair: unknown }[] }>().machines[0]?.repair).toBeNull();
    await survives(outcome);
  });

  it('a key record that does not open costs a full copy under new keys, never a point that can not be restored', async () => {
    await changed();
    servers.wire.hurt({
      fault: 'flip-bit',
      when: ({ method, path }) => method === 'GET' && /keys\//.test(path),
      times: 99,
    });
    const outcome = await site.failkit('sync', '--json');
    expect(wasHit('flip-bit')).toBeGreaterThan(0);
    const [machine] = outcome.json<{ machines: { repair: { resentDisks: string[] } }[] }>().machines;
    expect(machine?.repair.resentDisks).toEqual(['system', 'data']);
    await survives(outcome);
  });
});
