import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type AzurePeer, azuriteNeeds, sasFor, startAzurite } from '../peers/azure.ts';
import { type FaultProxy, type FaultRule, startFaultProxy } from '../peers/fault-proxy.ts';
import { fakeGcsNeeds, type GcsPeer, startFakeGcs } from '../peers/gcs.ts';
import type { Outcome } from './failkit-process.ts';
import {
  changeDisk,
  machineName,
  makeSite,
  noPeers,
  type Settings,
  type Site,
  sha256OfDisks,
  sha256OfRestored,
} from './site.ts';

/** From an empty bucket to a restore in the clouds that are not AWS, and what goes wrong on the way. */

interface Refusal {
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null };
}

/** Whoever may do what is told by a word of the environment, as an operator would. */
interface Place {
  repository(more?: { readonly secret?: string; readonly missing?: true }): Settings;
  readonly secrets: Readonly<Record<string, string>>;
}

interface Cloud {
  readonly name: string;
  readonly needs: string | null;
  /** Says what the cloud's server can't refuse. */
  readonly lacks: string | null;
  start(): Promise<AzurePeer | GcsPeer>;
}

const hourMs = 3_600_000;
const clouds: readonly Cloud[] = [
  { name: 'Azure Blob storage', needs: await azuriteNeeds(), lacks: null, start: () => startAzurite({ tls: false }) },
  {
    name: 'Google Cloud Storage',
    needs: await fakeGcsNeeds(),
    lacks: 'needs a server of Google Cloud Storage that enforces permissions',
    start: () => startFakeGcs({ tls: false }),
  },
];

/** The agent may read, list and create; whoever restores may read and list. */
async function azurePlace(peer: AzurePeer, origin: string): Promise<Place> {
  const container = await peer.createContainer();
  const sas = (permissions: string, untilMs: number) => sasFor(peer, container, permissions, untilMs).reveal();
  return {
    repository: ({ secret = 'AGENT', missing } = {}) => ({
      target: 'azure-blob',
      account: peer.account,
      container: missing ? 'no-such-container' : container,
      prefix: 'replicas/berlin',
      endpoint: `${origin}/${peer.account}`,
      credentials: missing
        ? { from: 'account-key', accountKey: `\${env:OWNER}` }
        : { from: 'sas', sasToken: `\${env:${secret}}` },
    }),
    secrets: {
      AGENT: sas('rlc', Date.now() + hourMs),
      RESTORER: sas('rl', Date.now() + hourMs),
      EXPIRED: sas('rlc', Date.now() - hourMs),
      OWNER: peer.accountKey.reveal(),
    },
  };
}

async function gcsPlace(peer: GcsPeer, origin: string): Promise<Place> {
  const bucket = await peer.createBucket();
  return {
    repository: ({ secret = 'AGENT', missing } = {}) => ({
      target: 'gcs',
      bucket: missing ? 'no-such-bucket' : bucket,
      prefix: 'replicas/berlin',
      endpoint: origin,
      credentials: { from: 'service-account', key: `\${env:${secret}}` },
    }),
    secrets: { AGENT: peer.serviceAccountKey.reveal(), RESTORER: peer.serviceAccountKey.reveal(), EXPIRED: '{}' },
  };
}

const isPut: FaultRule['when'] = ({ method, query }) => method === 'PUT' || query.includes('uploadType');

describe.each(clouds)('$name', ({ needs, lacks, start }) => {
  describe.skipIf(needs !== null)(needs ?? 'from an empty bucket to a restore', () => {
    let peer: AzurePeer | GcsPeer;
    let wire: FaultProxy;
    let place: Place;
    let site: Site;
    let restores = 0;
    const keys = { provider: 'local-key', file: 'local.key' };
    beforeAll(async () => {
      peer = await start();
      wire = await startFaultProxy(new URL(peer.endpoint).origin);
      place = 'account' in peer ? await azurePlace(peer, wire.endpoint) : await gcsPlace(peer, wire.endpoint);
      site = await makeSite(noPeers);
      Object.assign(site.environment, place.secrets);
      await site.configure({ repository: place.repository(), keys });
    });
    afterAll(async () => {
      await site?.[Symbol.asyncDispose]();
      await wire?.[Symbol.asyncDispose]();
      await peer?.stop();
    });
    afterEach(async () => {
      wire.heal();
      wire.beforeEach(() => undefined);
      await site.configure({ repository: place.repository(), keys });
    });

    function succeeded(outcome: Outcome): Outcome {
      expect(outcome.exitCode, outcome.stdout + outcome.stderr).toBe(0);
      return outcome;
    }

    async function refusal(...args: string[]): Promise<readonly [number, string]> {
      const outcome = await site.failkit(...args, '--json');
      return [outcome.exitCode, outcome.json<Refusal>().error.code];
    }

    async function expectRestored(): Promise<void> {
      const to = join(site.folder, `restored-${++restores}`);
      succeeded(await site.failkit('restore', machineName, '--to', to));
      expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(site));
    }

    it('init finds puts atomic, and a seed survives throttling and lost answers', async () => {
      succeeded(await site.failkit('init', '--kit', join(site.folder, 'kit')));
      wire.hurt({ fault: 'slow-down', when: () => true, times: 3 });
      wire.hurt({ fault: 'reset-upload', when: isPut });
      wire.hurt({ fault: 'lose-answer', when: isPut, times: 2 });
      succeeded(await site.failkit('seed'));
      await expectRestored();
    });

    it('doctor finds nothing wrong', async () => {
      const { stdout } = succeeded(await site.failkit('doctor'));
      expect(stdout).toMatch(/^ok +store .*answers in/m);
      expect(stdout).toMatch(/^ok +puts /m);
      // Of the machine it says that its disk was written just now, which is so.
      expect(stdout).not.toMatch(/^failed |^warning(?! +machine )/m);
    });

    it('a sync that is killed in the middle is taken up by the next one', async () => {
      await changeDisk(site, 'data', 1, 30);
      let puts = 0;
      const sync = site.start('sync');
      wire.beforeEach((request) => {
        if (isPut({ ...request, query: request.path.startsWith('/upload') ? 'uploadType' : '' }) && ++puts === 2)
          sync.kill('SIGKILL');
      });
      expect((await sync.ended).exitCode).not.toBe(0);
      expect(puts).toBeGreaterThanOrEqual(2);
      wire.beforeEach(() => undefined);
      succeeded(await site.failkit('sync'));
      await expectRestored();
    });

    it('a missing bucket and expired or wrong credentials are told apart, by doctor too', async () => {
      await site.configure({ repository: place.repository({ missing: true }), keys });
      expect(await refusal('sync')).toEqual([4, 'BUCKET_NOT_FOUND']);
      await site.configure({ repository: place.repository({ secret: 'EXPIRED' }), keys });
      expect(await refusal('sync')).toEqual([4, 'ACCESS_DENIED']);
      const { exitCode, stdout } = await site.failkit('doctor');
      expect(exitCode).toBe(4);
      expect(stdout).toMatch(/^failed +store /m);
    });

    it.skipIf(lacks !== null)(
      `the restorer reads everything and may write nothing${lacks ? ` (${lacks})` : ''}`,
      async () => {
        await site.configure({ repository: place.repository({ secret: 'RESTORER' }), keys });
        succeeded(await site.failkit('verify'));
        await expectRestored();
        expect(await refusal('sync')).toEqual([4, 'ACCESS_DENIED']);
      },
    );
  });
});
