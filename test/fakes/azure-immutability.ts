import type { ContainerClient } from '@azure/storage-blob';
import { connectAzure } from '../../storage-targets/azure-blob-connection.ts';
import { type AzurePeer, azureOptions } from '../peers/azure.ts';
import { type Asked, type Given, startStubProxy } from './stub-proxy.ts';

/**
 * What Azure documents of version-level immutability, in front of azurite, which knows neither policies nor versions:
 * learn.microsoft.com/azure/storage/blobs/immutable-version-level-worm-policies and the pages of Put Blob, Delete Blob and
 * Set Blob Immutability Policy. Azure itself has not been asked.
 */
export interface AzureImmutability extends AsyncDisposable {
  /** As azurite's own, but reached through the stub. */
  readonly peer: AzurePeer;
  /** So many of the next requests that look at a blob are throttled. */
  busyLooks: number;
  createContainer(options?: { readonly immutability?: boolean; readonly defaultPolicy?: boolean }): Promise<string>;
}

interface Policy {
  readonly untilMs: number;
  readonly mode: 'Locked' | 'Unlocked';
}

interface Version {
  readonly name: string;
  readonly id: string;
  readonly bytes: Buffer;
  readonly metadata: Readonly<Record<string, string>>;
  policy: Policy | null;
}

interface Container {
  readonly client: ContainerClient;
  readonly immutability: boolean;
  readonly defaultPolicy: boolean;
  /** Of current versions. */
  readonly policies: Map<string, Policy>;
  readonly earlier: Version[];
}

/** One request for a blob: which it is, and what it is about. */
interface AskedBlob extends Asked {
  readonly container: Container;
  readonly name: string;
  passOn(): Promise<Given>;
}

export async function startAzureImmutability(azurite: AzurePeer): Promise<AzureImmutability> {
  const containers = new Map<string, Container>();
  const proxy = await startStubProxy(azurite, async (asked, passOn) => {
    const [, , containerName = '', ...parts] = asked.path.split('/');
    const container = containers.get(containerName);
    if (container === undefined) return await passOn();
    if (lacksPermission(asked)) return refused(403, 'AuthorizationPermissionMismatch');
    if (asked.method === 'HEAD' && stub.busyLooks > 0) {
      stub.busyLooks--;
      return refused(503, 'ServerBusy');
    }
    const name = parts.join('/');
    if (name === '') return await answerContainer(container, asked, passOn);
    return await answerBlob({ ...asked, container, name, passOn });
  });
  const stub: AzureImmutability = {
    busyLooks: 0,
    peer: { ...azurite, endpoint: `${proxy.endpoint}/${azurite.account}`, caFile: null },
    createContainer: async ({ immutability = true, defaultPolicy = false } = {}) => {
      const name = await azurite.createContainer();
      const { client } = await connectAzure(azureOptions(azurite, name));
      containers.set(name, { client, immutability, defaultPolicy, policies: new Map(), earlier: [] });
      return name;
    },
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  };
  return stub;
}

/** A shared access signature locks only with the permission to. */
function lacksPermission({ query, headers }: Asked): boolean {
  if (!query.has('sig')) return false;
  const locks = query.get('comp') === 'immutabilityPolicies' || 'x-ms-immutability-policy-until-date' in headers;
  const isOfContainer = query.get('restype') === 'container' && !query.has('comp');
  return (locks && !query.get('sp')?.includes('i')) || (isOfContainer && query.get('sr') === 'c');
}

async function answerContainer(container: Container, asked: Asked, passOn: () => Promise<Given>): Promise<Given> {
  const { query } = asked;
  if (query.get('comp') === 'list' && query.get('include')?.includes('versions'))
    return await listVersions(container, query.get('prefix') ?? '');
  const given = await passOn();
  if (query.has('comp')) return given;
  return withHeaders(given, {
    'x-ms-immutable-storage-with-versioning-enabled': String(container.immutability),
    'x-ms-has-immutability-policy': String(container.defaultPolicy),
  });
}

async function answerBlob(asked: AskedBlob): Promise<Given> {
  const { container, name, query, method } = asked;
  const id = query.get('versionid');
  const version = id === null ? null : container.earlier.find((each) => each.name === name && each.id === id);
  if (version === undefined) return refused(404, 'BlobNotFound');
  if (query.get('comp') === 'immutabilityPolicies') return await changePolicy(asked, version);
  if (method === 'DELETE') return version === null ? await deleteCurrent(asked) : deleteVersion(container, version);
  if (method === 'PUT') return query.has('comp') ? await changeBlob(asked) : await putBlob(asked);
  if (version !== null) return given(200, { ...headersOf(version.policy), ...contentOf(version) }, version.bytes);
  return withHeaders(await asked.passOn(), headersOf(container.policies.get(name) ?? null));
}

async function putBlob(asked: AskedBlob): Promise<Given> {
  const { container, name, headers } = asked;
  const mayOverwrite = headers['if-none-match'] !== '*';
  // An overwrite is never refused: it makes a new version, and the one before keeps its policy.
  if (mayOverwrite && container.immutability) await keepCurrent(container, name);
  const answer = await asked.passOn();
  const policy = policyOf(headers);
  if (answer.status !== 201 || !container.immutability) return answer;
  if (policy === null) container.policies.delete(name);
  else container.policies.set(name, policy);
  return answer;
}

/** Metadata of a locked version cannot be written. */
async function changeBlob({ container, name, query, passOn }: AskedBlob): Promise<Given> {
  if (query.get('comp') === 'metadata' && isLocked(container.policies.get(name))) return immutable();
  return await passOn();
}

async function deleteCurrent({ container, name, passOn }: AskedBlob): Promise<Given> {
  if (isLocked(container.policies.get(name))) return immutable();
  if (container.immutability) await keepCurrent(container, name);
  return await passOn();
}

function deleteVersion(container: Container, version: Version): Given {
  if (isLocked(version.policy)) return immutable();
  container.earlier.splice(container.earlier.indexOf(version), 1);
  return given(202, {});
}

async function changePolicy(asked: AskedBlob, version: Version | null): Promise<Given> {
  const { container, name, method, headers } = asked;
  if (version === null && !(await container.client.getBlobClient(name).exists())) return refused(404, 'BlobNotFound');
  const before = version === null ? container.policies.get(name) : version.policy;
  const wanted = method === 'DELETE' ? null : policyOf(headers);
  const relaxes = wanted === null || wanted.mode === 'Unlocked' || wanted.untilMs < (before?.untilMs ?? 0);
  if (before?.mode === 'Locked' && relaxes) return immutable();
  if (version !== null) version.policy = wanted;
  else if (wanted === null) container.policies.delete(name);
  else container.policies.set(name, wanted);
  return given(200, headersOf(wanted));
}

/** The current version becomes an earlier one. */
async function keepCurrent(container: Container, name: string): Promise<void> {
  const blob = container.client.getBlobClient(name);
  if (!(await blob.exists())) return;
  const { metadata = {} } = await blob.getProperties();
  const id = new Date(Date.now() + container.earlier.length).toISOString().replace('Z', '0000Z');
  const policy = container.policies.get(name) ?? null;
  container.earlier.push({ name, id, bytes: await blob.downloadToBuffer(), metadata, policy });
  container.policies.delete(name);
}

async function listVersions({ client, earlier }: Container, prefix: string): Promise<Given> {
  const found = earlier.filter(({ name }) => name.startsWith(prefix)).map((each) => listed(each.name, each.id));
  for await (const { name } of client.listBlobsFlat({ prefix }))
    found.push(listed(name, '2099-01-01T00:00:00.0000000Z'));
  const xml = `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Prefix>${prefix}</Prefix><Blobs>${found.sort().join('')}</Blobs><NextMarker /></EnumerationResults>`;
  return given(200, { 'content-type': 'application/xml' }, Buffer.from(xml));
}

function listed(name: string, id: string): string {
  const properties = `<Last-Modified>${new Date().toUTCString()}</Last-Modified><Etag>0x1</Etag><Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType>`;
  return `<Blob><Name>${name}</Name><VersionId>${id}</VersionId><Properties>${properties}</Properties></Blob>`;
}

function isLocked(policy: Policy | null | undefined): boolean {
  return policy !== null && policy !== undefined && policy.untilMs > Date.now();
}

function policyOf(headers: Asked['headers']): Policy | null {
  const until = headers['x-ms-immutability-policy-until-date'];
  if (typeof until !== 'string') return null;
  const mode = String(headers['x-ms-immutability-policy-mode'] ?? 'unlocked').toLowerCase();
  return { untilMs: Date.parse(until), mode: mode === 'locked' ? 'Locked' : 'Unlocked' };
}

function headersOf(policy: Policy | null): Record<string, string> {
  if (policy === null) return {};
  return {
    'x-ms-immutability-policy-until-date': new Date(policy.untilMs).toUTCString(),
    'x-ms-immutability-policy-mode': policy.mode,
  };
}

function contentOf({ id, bytes, metadata }: Version): Record<string, string> {
  const headers: Record<string, string> = { 'x-ms-version-id': id, 'content-length': String(bytes.length) };
  for (const [key, value] of Object.entries(metadata)) headers[`x-ms-meta-${key}`] = value;
  return { ...headers, etag: '"0x1"', 'last-modified': new Date().toUTCString() };
}

function withHeaders(answer: Given, more: Readonly<Record<string, string>>): Given {
  return { ...answer, headers: { ...answer.headers, ...more } };
}

function given(status: number, headers: Readonly<Record<string, string>>, body: Uint8Array = Buffer.alloc(0)): Given {
  return { status, headers: { date: new Date().toUTCString(), ...headers }, body };
}

function immutable(): Given {
  return refused(409, 'BlobImmutableDueToPolicy');
}

function refused(status: number, code: string): Given {
  const xml = `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${code} (stub)</Message></Error>`;
  return given(status, { 'content-type': 'application/xml', 'x-ms-error-code': code }, Buffer.from(xml));
}
