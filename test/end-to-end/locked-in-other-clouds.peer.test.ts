import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import type { BlobItem } from '@azure/storage-blob';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { connectAzure } from '../../storage-targets/azure-blob-connection.ts';
import { closeAgents, httpAgents } from '../../storage-targets/http-agents.ts';
import { exchange } from '../../storage-targets/http-exchange.ts';
import { type AzureImmutability, startAzureImmutability } from '../fakes/azure-immutability.ts';
import { type GcsRetention, startGcsRetention } from '../fakes/gcs-retention.ts';
import { type AzurePeer, azureOptions, azuriteNeeds, sasFor, startAzurite } from '../peers/azure.ts';
import { fakeGcsNeeds, type GcsPeer, startFakeGcs } from '../peers/gcs.ts';
import {
  changeDisk,
  machineName,
  makeSite,
  type Settings,
  type Site,
  sha256OfDisks,
  sha256OfRestored,
} from './site.ts';

/** Immutability in the clouds that are not AWS, against somebody with every right: at emulators, behind stubs of what is documented. */

const immutability = { days: 1, mode: 'compliance' };
const keys = { provider: 'local-key', file: 'local.key' };

/** One container or bucket: how the agent reaches it, and what its thief can do. */
interface Place {
  readonly repository: Settings;
  readonly secrets: Readonly<Record<string, string>>;
  /** Tries every way of removing, and of replacing, every object for good; what it names was lost. */
  destroyAll(): Promise<string[]>;
  /** Hides every object under newer versions or none, and says how many there were. */
  hideAll(): Promise<number>;
  /** As the owner, afterwards. */
  bringBack(): Promise<void>;
}

interface Cloud {
  readonly name: string;
  readonly needs: string | null;
  readonly feature: RegExp;
  /** What doctor says of it with the rights of an agent. */
  readonly asksFrom: RegExp;
  start(): Promise<AsyncDisposable & { place(options?: { readonly locks?: boolean }): Promise<Place> }>;
}

const clouds: readonly Cloud[] = [
  {
    name: 'Azure Blob storage',
    needs: await azuriteNeeds(),
    feature: /version-level immutability/,
    asksFrom: /^warning +object lock +whether azure:.* has version-level immutability may not be asked from here/m,
    start: async () => {
      const azurite = await startAzurite({ tls: false });
      const stub = await startAzureImmutability(azurite);
      return {
        place: ({ locks = true } = {}) => azurePlace(stub, locks),
        [Symbol.asyncDispose]: () => stopBoth(stub, azurite),
      };
    },
  },
  {
    name: 'Google Cloud Storage',
    needs: await fakeGcsNeeds(),
    feature: /object retention/,
    asksFrom: /^ok +object lock +the bucket has object retention, and no rule that is in the way/m,
    start: async () => {
      const fakeGcs = await startFakeGcs({ tls: false });
      const stub = await startGcsRetention(fakeGcs);
      return {
        place: ({ locks = true } = {}) => gcsPlace(stub, locks),
        [Symbol.asyncDispose]: () => stopBoth(stub, fakeGcs),
      };
    },
  },
];

async function stopBoth(stub: AsyncDisposable, server: AzurePeer | GcsPeer): Promise<void> {
  await stub[Symbol.asyncDispose]();
  await server.stop();
}

/** The agent's signature may read, list, create and lock; the thief has the key of the account. */
async function azurePlace({ peer, createContainer }: AzureImmutability, locks: boolean): Promise<Place> {
  const container = await createContainer({ immutability: locks });
  const { client } = await connectAzure(azureOptions(peer, container));
  const all = async (includeVersions: boolean): Promise<BlobItem[]> => {
    const found: BlobItem[] = [];
    for await (const item of client.listBlobsFlat({ includeVersions })) found.push(item);
    return found;
  };
  const word = locks ? `AGENT_${container.replaceAll('-', '_')}` : 'OWNER';
  return {
    repository: {
      target: 'azure-blob',
      account: peer.account,
      container,
      prefix: 'replicas/berlin',
      endpoint: peer.endpoint,
      credentials: locks
        ? { from: 'sas', sasToken: `\${env:${word}}` }
        : { from: 'account-key', accountKey: `\${env:${word}}` },
      immutability,
    },
    secrets: {
      [word]: (locks ? sasFor(peer, container, 'rlci', Date.now() + 3_600_000) : peer.accountKey).reveal(),
    },
    destroyAll: async () => {
      const lost: string[] = [];
      for (const { name } of await all(false)) {
        const blob = client.getBlockBlobClient(name);
        await attempt(() => blob.deleteImmutabilityPolicy());
        await attempt(() =>
          blob.setImmutabilityPolicy({ expiriesOn: new Date(Date.now() + 1000), policyMode: 'Locked' }),
        );
        if (await attempt(() => blob.setMetadata({}))) lost.push(name);
        if (await attempt(() => blob.delete({ deleteSnapshots: 'include' }))) lost.push(name);
      }
      return lost;
    },
    hideAll: async () => {
      const names = (await all(false)).map(({ name }) => name);
      for (const name of names) {
        await client.getBlockBlobClient(name).upload('', 0);
        await client.getBlockBlobClient(name).delete();
        for (const { name: each, versionId = '' } of await all(true))
          if (each === name) await attempt(() => client.getBlobClient(name).withVersion(versionId).delete());
      }
      return names.length;
    },
    bringBack: async () => {
      for (const { name, versionId = '' } of await all(true)) {
        const version = client.getBlobClient(name).withVersion(versionId);
        const { readableStreamBody } = await version.download();
        if (readableStreamBody === undefined) throw new Error(`${name} came without a body`);
        const bytes = await buffer(readableStreamBody);
        await client.getBlockBlobClient(name).upload(bytes, bytes.length);
      }
    },
  };
}

async function attempt(doing: () => Promise<unknown>): Promise<boolean> {
  return await doing().then(
    () => true,
    () => false,
  );
}

/** fake-gcs-server believes every token, so the thief needs none. */
async function gcsPlace({ peer, createBucket }: GcsRetention, locks: boolean): Promise<Place> {
  const bucket = await createBucket({ retention: locks, versioning: true });
  const ask = async (method: string, path: string, body = Buffer.alloc(0), api = '/storage/v1') => {
    const agents = await httpAgents({});
    const headers = { 'content-type': 'application/json', 'content-length': String(body.length) };
    const url = `${peer.endpoint}${api}/b/${bucket}${path}`;
    const answer = await exchange(agents, { method, url, headers, body: [body] }, new AbortController().signal);
    const answered = { ok: answer.status < 300, body: await buffer(answer.body) };
    closeAgents(agents);
    return answered;
  };
  const all = async (): Promise<{ name: string; generation: string }[]> =>
    JSON.parse((await ask('GET', '/o?versions=true')).body.toString()).items ?? [];
  const at = (name: string, generation: string) => `/o/${encodeURIComponent(name)}?generation=${generation}`;
  return {
    repository: {
      target: 'gcs',
      bucket,
      prefix: 'replicas/berlin',
      endpoint: peer.endpoint,
      credentials: { from: 'service-account', key: `\${env:GCS_KEY}` },
      immutability,
    },
    secrets: { GCS_KEY: peer.serviceAccountKey.reveal() },
    destroyAll: async () => {
      const lost: string[] = [];
      for (const { name, generation } of await all()) {
        const path = `${at(name, generation)}&overrideUnlockedRetention=true`;
        await ask('PATCH', path, Buffer.from(JSON.stringify({ retention: null })));
        const soon = { mode: 'Locked', retainUntilTime: new Date().toISOString() };
        await ask('PATCH', path, Buffer.from(JSON.stringify({ retention: soon })));
        if ((await ask('DELETE', at(name, generation))).ok) lost.push(name);
      }
      return lost;
    },
    hideAll: async () => {
      const objects = await all();
      for (const { name } of objects) await ask('DELETE', `/o/${encodeURIComponent(name)}`);
      for (const { name, generation } of await all()) await ask('DELETE', at(name, generation));
      return objects.length;
    },
    bringBack: async () => {
      for (const { name, generation } of await all()) {
        const { body } = await ask('GET', `${at(name, generation)}&alt=media`);
        const put = `/o?uploadType=media&name=${encodeURIComponent(name)}`;
        expect((await ask('POST', put, body, '/upload/storage/v1')).ok).toBe(true);
      }
    },
  };
}

describe.each(clouds)('$name (stub of the documented answers)', ({ needs, feature, asksFrom, start }) => {
  describe.skipIf(needs !== null)(needs ?? 'with immutability', () => {
    let cloud: Awaited<ReturnType<Cloud['start']>>;
    let place: Place;
    let site: Site;
    let seeded: Awaited<ReturnType<typeof sha256OfDisks>>;
    beforeAll(async () => {
      cloud = await start();
      place = await cloud.place();
      site = await openSite(place);
      await expectOk('init', '--kit', join(site.folder, 'kit'));
      await expectOk('seed');
      seeded = await sha256OfDisks(site);
      await changeDisk(site, 'data', 1);
      await expectOk('sync');
    });
    afterAll(async () => {
      await site?.[Symbol.asyncDispose]();
      await cloud?.[Symbol.asyncDispose]();
    });

    async function openSite({ repository, secrets }: Place): Promise<Site> {
      const nothing = { region: 'none', accessKeyId: 'none', secretAccessKey: { reveal: () => 'none' }, caFile: null };
      const kms = { region: 'none', credentials: nothing };
      const made = await makeSite({ s3: nothing, s3Endpoint: '', bucket: '', kms, kmsEndpoint: '', keyId: '' });
      Object.assign(made.environment, secrets);
      await made.configure({ repository, keys });
      return made;
    }

    async function expectOk(...args: string[]): Promise<string> {
      const { exitCode, stdout, stderr } = await site.failkit(...args);
      expect(exitCode, stdout + stderr).toBe(0);
      return stdout;
    }

    it('no object can be destroyed until the day that points tells, by the key of the account neither', async () => {
      const { machines } = JSON.parse(await expectOk('points', '--json'));
      expect(Date.parse(machines[0].immutableUntil) - Date.now()).toBeGreaterThan(10 * 24 * 3_600_000);
      expect(await place.destroyAll()).toEqual([]);
    });

    it('a copy is locked as well', async () => {
      const copied = await cloud.place();
      Object.assign(site.environment, copied.secrets);
      await writeFile(join(site.folder, 'copy.yaml'), stringify({ repository: copied.repository, keys }));
      await expectOk('copy', '--to', join(site.folder, 'copy.yaml'));
      expect(await copied.destroyAll()).toEqual([]);
    });

    it('every point that was hidden under newer versions restores once its owner brings it back', async () => {
      expect(await place.hideAll()).toBeGreaterThan(10);
      expect((await site.failkit('points')).exitCode).not.toBe(0);
      await place.bringBack();
      const { machines } = JSON.parse(await expectOk('points', '--json'));
      const known = [seeded, await sha256OfDisks(site)];
      expect(machines[0].points).toHaveLength(known.length);
      for (const [index, { point }] of machines[0].points.entries()) {
        const to = join(site.folder, `restored-${index}`);
        await expectOk('restore', machineName, '--point', String(point), '--to', to);
        expect(await sha256OfRestored(to)).toEqual(known[index]);
      }
    });

    it('doctor finds that it is there, or says that it may not ask', async () => {
      expect(await expectOk('doctor')).toMatch(asksFrom);
    });

    it('without it is an error before anything is written, and doctor says how to turn it on', async () => {
      await using other = await openSite(await cloud.place({ locks: false }));
      const refused = await other.failkit('init', '--kit', join(other.folder, 'kit'));
      expect(refused.exitCode).toBe(4);
      expect(refused.stderr).toMatch(feature);
      const { exitCode, stdout } = await other.failkit('doctor');
      expect(stdout).toMatch(/^failed +object lock .*repository\.immutability asks for it: make a /m);
      expect(exitCode).toBe(4);
    });
  });
});
