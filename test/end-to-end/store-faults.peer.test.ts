import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { failkitHere, type InProcess } from '../agent/in-process.ts';
import type { Fault, FaultRule } from '../peers/fault-proxy.ts';
import { changeDisk, machineName, makeSite, noPeers, type Site, sha256OfDisks, sha256OfRestored } from './site.ts';
import {
  isEntryPut,
  isPut,
  isSegmentGet,
  isSegmentPut,
  type StoreKind,
  type StoreOnTheWire,
  stores,
} from './stores-on-the-wire.ts';

/**
 * What goes wrong between the agent and each kind of store: a run survives it, or fails by name and the next one succeeds. The stores go
 * through the scenarios at one time, for most of that is waiting.
 */

interface Scene {
  readonly store: StoreOnTheWire;
  readonly site: Site;
  /** Changes the machine and forgets what passed. */
  changed(): Promise<void>;
  failkit(...args: string[]): Promise<InProcess>;
  wasHit(fault: Fault): number;
  /** It succeeded, and what is restored is the disk; no point is there twice. */
  survives(outcome: InProcess): Promise<void>;
  /** The run said that it failed with this code, and nothing of it is to be seen. */
  fails(outcome: InProcess, code: string): Promise<void>;
  restores(): Promise<void>;
  /** A point exists though its run could not know. */
  published(): void;
}

type Scenario = readonly [name: string, run: (scene: Scene) => Promise<void>];
const noStop = new AbortController().signal;

/** Matches each request once. */
function eachOnce(applies: FaultRule['when'] = () => true): FaultRule['when'] {
  const met = new Set<string>();
  return (request) => {
    const key = `${request.method} ${request.path}${request.query}`;
    if (!applies(request) || met.has(key)) return false;
    met.add(key);
    return true;
  };
}

const isGet: FaultRule['when'] = ({ method }) => method === 'GET';

const scenarios: readonly Scenario[] = [
  [
    'a seed survives uploads that break off, half-closed connections, lost answers and throttling',
    async ({ store: { wire }, failkit, wasHit, survives }) => {
      wire.hurt({ fault: 'reset-upload', when: isSegmentPut, times: 2 });
      wire.hurt({ fault: 'half-close', when: isSegmentPut, times: 2 });
      wire.hurt({ fault: 'lose-answer', when: isSegmentPut, times: 2 });
      wire.hurt({ fault: 'slow-down', when: () => true, times: 2 });
      wire.hurt({ fault: 'too-many', when: () => true, times: 2 });
      await survives(await failkit('seed'));
      for (const fault of ['reset-upload', 'half-close', 'lose-answer', 'slow-down', 'too-many'] as const)
        expect([fault, wasHit(fault)]).toEqual([fault, 2]);
    },
  ],
  [
    'a lost answer to a segment is settled by reading it back, not by a new name',
    async ({ store: { wire, statuses }, changed, failkit, survives }) => {
      await changed();
      wire.hurt({ fault: 'lose-answer', when: isSegmentPut });
      const outcome = await failkit('sync');
      const puts = wire.seen.filter(isSegmentPut);
      expect(puts.map(({ status }) => status)).toEqual(statuses);
      expect(new Set(puts.map(({ path }) => path)).size).toBe(1);
      await survives(outcome);
    },
  ],
  ...(['begin', 'publish'] as const).map(
    (entry, position): Scenario => [
      `a lost answer to the ${entry} entry makes no second one`,
      async ({ store: { wire, statuses }, changed, failkit, wasHit, survives }) => {
        await changed();
        let entries = 0;
        wire.hurt({ fault: 'lose-answer', when: (request) => isEntryPut(request) && entries++ === position });
        const outcome = await failkit('sync');
        expect(wasHit('lose-answer')).toBe(1);
        expect(wire.seen.filter((each) => isEntryPut(each) && each.status === statuses[0]).length).toBe(2);
        await survives(outcome);
      },
    ],
  ),
  [
    'a sync survives that is throttled at every request, in both ways',
    async ({ store: { wire }, changed, failkit, wasHit, survives }) => {
      await changed();
      wire.hurt({ fault: 'slow-down', when: eachOnce(), times: 1_000 });
      wire.hurt({ fault: 'too-many', when: eachOnce(), times: 1_000 });
      const outcome = await failkit('sync');
      for (const fault of ['slow-down', 'too-many'] as const) expect(wasHit(fault)).toBeGreaterThan(6);
      await survives(outcome);
    },
  ],
  [
    'a sync survives whose every answer breaks off, and whose every connection is half closed once',
    async ({ store: { wire }, changed, failkit, wasHit, survives }) => {
      await changed();
      wire.hurt({ fault: 'truncate', when: eachOnce(isGet), times: 1_000 });
      wire.hurt({ fault: 'half-close', when: eachOnce(), times: 1_000 });
      const outcome = await failkit('sync');
      expect(wasHit('truncate')).toBeGreaterThan(4);
      expect(wasHit('half-close')).toBeGreaterThan(6);
      await survives(outcome);
    },
  ],
  [
    'a body that is corrupted on its way to the store is refused there, and nothing is published',
    async ({ store: { wire }, changed, failkit, wasHit, fails, survives }) => {
      await changed();
      wire.hurt({ fault: 'flip-upload', when: isSegmentPut, times: 1_000 });
      await fails(await failkit('sync', '--json'), 'CHECKSUM_REFUSED');
      expect(wasHit('flip-upload')).toBeGreaterThan(0);
      wire.heal();
      await survives(await failkit('sync'));
    },
  ],
  [
    'throttling without end fails a sync by name, publishes nothing, and the next one goes on',
    async ({ store: { wire, codeOf503 }, changed, failkit, fails, survives }) => {
      await changed();
      wire.hurt({ fault: 'slow-down', when: isSegmentPut, times: 1_000 });
      await fails(await failkit('sync', '--json'), codeOf503);
      wire.heal();
      await survives(await failkit('sync'));
    },
  ],
  [
    'a publish whose answers are all lost fails, and the next sync finds what was published',
    async ({ store: { wire }, changed, failkit, fails, survives, published }) => {
      await changed();
      let entries = 0;
      // The answer to the publish is lost, and then the store is away.
      const away: FaultRule['when'] = (request) => (isEntryPut(request) ? ++entries > 1 : entries > 1);
      wire.hurt({ fault: 'lose-answer', times: 1_000, when: away });
      const outcome = await failkit('sync', '--json');
      published();
      await fails(outcome, 'STORE_UNAVAILABLE');
      await changed();
      await survives(await failkit('sync'));
    },
  ],
  [
    'a restore survives whatever becomes of an answer or its connection',
    async ({ store: { wire }, wasHit, restores }) => {
      const faults = ['truncate', 'reset-download', 'half-close', 'slow-down', 'too-many'] as const;
      wire.forget();
      // At worst all of them hit one reading, which has eight tries.
      for (const fault of faults) wire.hurt({ fault, when: isSegmentGet });
      await restores();
      expect(faults.map(wasHit)).toEqual(faults.map(() => 1));
    },
  ],
  [
    'a restore gives up answers that only drip, and those that never come',
    async ({ store: { wire }, wasHit, restores }) => {
      wire.forget();
      wire.hurt({ fault: 'drip', when: isSegmentGet, times: 2 });
      wire.hurt({ fault: 'hang', when: isSegmentGet });
      const began = performance.now();
      await restores();
      expect([wasHit('drip'), wasHit('hang')]).toEqual([2, 1]);
      // Each of them would hold it for a quarter of an hour.
      expect(performance.now() - began).toBeLessThan(300_000);
    },
  ],
  [
    'a flipped bit in a restore is caught, and the same command goes on',
    async ({ store: { wire }, site, failkit, restores }) => {
      wire.hurt({ fault: 'flip-bit', when: isSegmentGet, times: 1_000 });
      const to = join(site.folder, 'flipped');
      const failed = await failkit('restore', machineName, '--to', to, '--json');
      expect(failed.exitCode).toBe(7);
      await expect(sha256OfRestored(to)).rejects.toThrow(/ENOENT/);
      wire.heal();
      await restores();
    },
  ],
];

interface Refusal {
  readonly error: { readonly code: string };
}

async function sceneOf(store: StoreOnTheWire, site: Site): Promise<Scene> {
  let [round, published] = [0, 0];
  const { wire } = store;
  const config = await site.configure({
    repository: store.repository,
    keys: { provider: 'local-key', file: 'local.key' },
  });
  const failkit = (...args: string[]) => failkitHere(['--config', config, ...args], { environment: store.environment });
  const succeeded = (outcome: InProcess): void => expect(outcome.exitCode, outcome.stdout + outcome.stderr).toBe(0);
  const restores = async (): Promise<void> => {
    const to = join(site.folder, `restored-${++round}`);
    succeeded(await failkit('restore', machineName, '--to', to));
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(site));
  };
  const expectPublished = async (): Promise<void> => {
    wire.heal();
    const listed = await failkit('points', machineName, '--json');
    succeeded(listed);
    expect(JSON.parse(listed.stdout).machines[0]?.points.length ?? 0).toBe(published);
  };
  return {
    ...{ store, site, failkit, restores },
    changed: async () => {
      await changeDisk(site, 'data', ++round, 30);
      wire.forget();
    },
    wasHit: (fault) => wire.seen.filter((request) => request.fault === fault).length,
    survives: async (outcome) => {
      succeeded(outcome);
      published++;
      await expectPublished();
      await restores();
    },
    fails: async (outcome, code) => {
      expect([outcome.exitCode, (JSON.parse(outcome.stdout) as Refusal).error.code]).toEqual([4, code]);
      await expectPublished();
    },
    published: () => void published++,
  };
}

describe.concurrent.each(stores)('faults in front of $name', ({ needs, start }: StoreKind) => {
  it.skipIf(needs !== null)(needs ?? 'lose nothing, publish nothing twice, and are named', async () => {
    await using store = await start();
    await using site = await makeSite(noPeers);
    const scene = await sceneOf(store, site);
    const made = await scene.failkit('init', '--kit', join(site.folder, 'kit'));
    expect(made.exitCode, made.stderr).toBe(0);
    for (const [name, run] of scenarios) {
      store.wire.heal();
      await run(scene).catch((error: Error) => {
        throw new Error(`${name}: ${error.message}`, { cause: error });
      });
    }
  });
});

const objectBytes = 16 * 1024;
const objects = 300;
const burstMs = 3_000;
const recoveredMsMax = 15_000;

/** One store after the other, for this compares times. */
describe.each(stores)('throughput to $name', ({ needs, start }: StoreKind) => {
  it.skipIf(needs !== null)(needs ?? 'is what it was within seconds after seconds of throttling', async () => {
    await using store = await start();
    const { target, limit } = wrapTarget(await store.openTarget(), {
      inFlightMax: 8,
      uploadBytesPerSecond: null,
      downloadBytesPerSecond: null,
    });
    await using _ = target;
    const putAll = async (round: string): Promise<void> => {
      const bytes = new Uint8Array(objectBytes).fill(7);
      const put = (at: number) => target.putIfAbsent(`${round}/${at}`, bytes, { sha256: sha256(bytes) }, noStop);
      await Promise.all(Array.from({ length: objects }, (_each, at) => put(at)));
    };
    const timed = async (round: string): Promise<number> => {
      const began = performance.now();
      await putAll(round);
      return performance.now() - began;
    };
    await timed('warm');
    const before = await timed('before');

    const healed = performance.now() + burstMs;
    for (const fault of ['slow-down', 'too-many'] as const)
      store.wire.hurt({ fault, when: (request) => isPut(request) && performance.now() < healed, times: 1_000_000 });
    await putAll('throttled');
    expect(store.wire.seen.filter(({ fault }) => fault !== null).length).toBeGreaterThan(objects);
    expect(performance.now() - healed).toBeLessThan(recoveredMsMax + before);
    // All that may be under way is again, and as much gets through as before.
    expect(limit.current).toBe(8);
    expect(await timed('after')).toBeLessThan(3 * before + 1_000);
  });
});
