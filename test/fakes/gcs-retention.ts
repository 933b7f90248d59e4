import { buffer } from 'node:stream/consumers';
import { closeAgents, httpAgents } from '../../storage-targets/http-agents.ts';
import { answerText, exchange } from '../../storage-targets/http-exchange.ts';
import type { GcsPeer } from '../peers/gcs.ts';
import { type Asked, type Given, startStubProxy } from './stub-proxy.ts';

/**
 * What Google documents of Object Retention Lock, in front of fake-gcs-server, which keeps the fields and enforces nothing:
 * cloud.google.com/storage/docs/object-lock, .../json_api/v1/objects, .../json_api/v1/status-codes. Google Cloud itself has not been asked.
 */
export interface GcsRetention extends AsyncDisposable {
  /** As fake-gcs-server's own, but reached through the stub. */
  readonly peer: GcsPeer;
  createBucket(options?: BucketOptions): Promise<string>;
  /** Names of the objects that have an earlier generation. */
  noncurrentOf(bucket: string): readonly string[];
}

interface BucketOptions {
  readonly retention?: boolean;
  readonly versioning?: boolean;
  /** More of its metadata: `lifecycle`, `retentionPolicy`. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Nobody may read its settings. */
  readonly secret?: boolean;
  /** It takes what is said of retention, and keeps none of it. */
  readonly forgetful?: boolean;
}

type Json = Readonly<Record<string, unknown>>;

interface Retention {
  readonly mode: string;
  readonly retainUntilTime: string;
}

interface Generation {
  readonly name: string;
  readonly generation: string;
  readonly resource: Json;
  readonly bytes: Buffer;
}

interface Bucket extends BucketOptions {
  /** Of live objects. */
  readonly retained: Map<string, Retention>;
  readonly noncurrent: Generation[];
  /** Asks the real server: the resource, or null where there is none. */
  look(name: string): Promise<Json | null>;
  read(name: string): Promise<Buffer>;
}

interface AskedObject extends Asked {
  readonly bucket: Bucket;
  readonly name: string;
  passOn(): Promise<Given>;
}

export async function startGcsRetention(fakeGcs: GcsPeer): Promise<GcsRetention> {
  const agents = await httpAgents(fakeGcs.caFile === null ? {} : { caFile: fakeGcs.caFile });
  const buckets = new Map<string, Bucket>();
  const proxy = await startStubProxy(fakeGcs, async (asked, passOn) => {
    const [, bucketName = '', rest = ''] = /\/storage\/v1\/b\/([^/]+)(.*)$/.exec(asked.path) ?? [];
    const bucket = buckets.get(bucketName);
    if (bucket === undefined) return await passOn();
    if (rest === '') return bucket.secret ? refused(403, 'forbidden') : withJson(await passOn(), settingsOf(bucket));
    if (asked.path.startsWith('/upload/')) return await upload(bucket, asked, passOn);
    if (rest === '/o') return await list(bucket, asked, passOn);
    return await answerObject({ ...asked, bucket, name: rest.slice('/o/'.length), passOn });
  });
  const ask = async (path: string) => {
    const url = `${fakeGcs.endpoint}/storage/v1/b/${path}`;
    return await exchange(agents, { method: 'GET', url, headers: {}, body: [] }, new AbortController().signal);
  };
  return {
    peer: { ...fakeGcs, endpoint: proxy.endpoint, caFile: null },
    createBucket: async (options = {}) => {
      const id = await fakeGcs.createBucket();
      const at = (name: string) => `${id}/o/${encodeURIComponent(name)}`;
      const look = async (name: string) => {
        const answer = await ask(at(name));
        const text = await answerText(answer);
        return answer.status === 200 ? JSON.parse(text) : null;
      };
      const read = async (name: string) => await buffer((await ask(`${at(name)}?alt=media`)).body);
      buckets.set(id, { retention: true, ...options, retained: new Map(), noncurrent: [], look, read });
      return id;
    },
    noncurrentOf: (bucket) => buckets.get(bucket)?.noncurrent.map(({ name }) => name) ?? [],
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]();
      closeAgents(agents);
    },
  };
}

function settingsOf({ retention, versioning, settings = {} }: Bucket): Json {
  return {
    ...settings,
    ...(retention && { objectRetention: { mode: 'Enabled' } }),
    versioning: { enabled: versioning === true },
  };
}

async function upload(bucket: Bucket, asked: Asked, passOn: () => Promise<Given>): Promise<Given> {
  const { name, retention } = metadataOf(asked);
  if (retention !== undefined && !bucket.retention) return refused(400, 'invalid');
  const mayReplace = !asked.query.has('ifGenerationMatch');
  if (mayReplace && bucket.versioning) await keepLive(bucket, name);
  else if (mayReplace && isRetained(bucket.retained.get(name))) return refused(403, 'retentionPolicyNotMet');
  const given = await passOn();
  if (given.status !== 200) return given;
  if (bucket.forgetful) return withJson(given, { retention: undefined });
  if (retention !== undefined) bucket.retained.set(name, retention);
  return withJson(given, { retention });
}

/** The first part of the two, or of the bytes alone their name. */
function metadataOf({ query, body }: Asked): { readonly name: string; readonly retention?: Retention } {
  if (query.get('uploadType') === 'media') return { name: query.get('name') ?? '' };
  const [, json = '{}'] = /\r\n\r\n(\{.*?\})\r\n--/s.exec(body.toString('latin1')) ?? [];
  return JSON.parse(json);
}

async function list(bucket: Bucket, { query }: Asked, passOn: () => Promise<Given>): Promise<Given> {
  const given = await passOn();
  if (query.get('versions') !== 'true') return given;
  const { items = [], ...rest }: { items?: unknown[] } = JSON.parse(Buffer.from(given.body).toString());
  const earlier = bucket.noncurrent.filter(({ name }) => name.startsWith(query.get('prefix') ?? ''));
  return withJson(given, { ...rest, items: [...items, ...earlier.map(({ resource }) => resource)] });
}

async function answerObject(asked: AskedObject): Promise<Given> {
  const { bucket, name, query, method, passOn } = asked;
  const wanted = query.get('generation');
  const earlier = bucket.noncurrent.find((each) => each.name === name && each.generation === wanted);
  if (method === 'PATCH') return await changeRetention(asked);
  if (method === 'DELETE') return earlier === undefined ? await deleteLive(asked) : deleteNoncurrent(bucket, earlier);
  if (earlier !== undefined)
    return query.get('alt') === 'media' ? given(200, {}, earlier.bytes) : json(200, earlier.resource);
  const answer = await passOn();
  if (answer.status !== 200 || query.get('alt') === 'media') return answer;
  return withJson(answer, { retention: bucket.retained.get(name) });
}

async function changeRetention({ bucket, name, query, body }: AskedObject): Promise<Given> {
  const live = await bucket.look(name);
  if (live === null) return refused(404, 'notFound');
  const { retention: wanted }: { retention: Retention | null } = JSON.parse(body.toString());
  if (!bucket.retention) return refused(400, 'invalid');
  const before = bucket.retained.get(name);
  const relaxes =
    before !== undefined &&
    (wanted === null || wanted.mode !== before.mode || wanted.retainUntilTime < before.retainUntilTime);
  const override = query.get('overrideUnlockedRetention') === 'true' && before?.mode === 'Unlocked';
  if (relaxes && !override) return refused(403, 'forbidden');
  if (wanted === null) bucket.retained.delete(name);
  else bucket.retained.set(name, wanted);
  return json(200, { ...live, retention: wanted });
}

async function deleteLive({ bucket, name, query, passOn }: AskedObject): Promise<Given> {
  if (!query.has('generation') && bucket.versioning) await keepLive(bucket, name);
  else if (isRetained(bucket.retained.get(name))) return refused(403, 'retentionPolicyNotMet');
  return await passOn();
}

function deleteNoncurrent(bucket: Bucket, earlier: Generation): Given {
  if (isRetained(earlier.resource.retention as Retention | undefined)) return refused(403, 'retentionPolicyNotMet');
  bucket.noncurrent.splice(bucket.noncurrent.indexOf(earlier), 1);
  return given(204, {});
}

/** The live object becomes a noncurrent one, and keeps its retention. */
async function keepLive(bucket: Bucket, name: string): Promise<void> {
  const live = await bucket.look(name);
  if (live === null) return;
  const resource = { ...live, retention: bucket.retained.get(name) };
  bucket.noncurrent.push({ name, generation: String(live.generation), resource, bytes: await bucket.read(name) });
  bucket.retained.delete(name);
}

function isRetained(retention: Retention | undefined): boolean {
  return retention !== undefined && Date.parse(retention.retainUntilTime) > Date.now();
}

function withJson(answer: Given, more: Json): Given {
  const body = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(answer.body).toString()), ...more }));
  return { ...answer, headers: { ...answer.headers, 'content-length': String(body.length) }, body };
}

function json(status: number, resource: Json): Given {
  return given(status, { 'content-type': 'application/json' }, Buffer.from(JSON.stringify(resource)));
}

function given(status: number, headers: Readonly<Record<string, string>>, body: Uint8Array = Buffer.alloc(0)): Given {
  return {
    status,
    headers: { date: new Date().toUTCString(), 'content-length': String(body.length), ...headers },
    body,
  };
}

function refused(status: number, reason: string): Given {
  return json(status, { error: { code: status, message: `${reason} (stub)`, errors: [{ reason }] } });
}
