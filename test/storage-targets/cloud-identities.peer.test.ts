import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { openAzureTarget } from '../../storage-targets/azure-blob.ts';
import { openGcsTarget } from '../../storage-targets/gcs.ts';
import { azureOptions, azuriteNeeds, startAzurite } from '../peers/azure.ts';
import { freePort } from '../peers/server-process.ts';

/** Nobody but the vendors gives out tokens: what does so here answers as they document it. */

const never = new AbortController().signal;
const needsAzurite = await azuriteNeeds();

let server: Server;
let origin: string;
let folder: string;
let answer: (request: IncomingMessage, body: string) => { readonly status: number; readonly body: object };
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-identities-'));
  server = createServer(async (request, response) => {
    const { status, body } = answer(request, await text(request));
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});
afterEach(() => vi.unstubAllEnvs());

describe.skipIf(needsAzurite !== null)(needsAzurite ?? "an Azure host's managed identity", () => {
  it('opens the container; a token for another service, and one that expired, are AccessDenied', async () => {
    await using peer = await startAzurite();
    const { credentials: _, ...options } = azureOptions(peer, await peer.createContainer());
    vi.stubEnv('AZURE_TOKEN_CREDENTIALS', 'ManagedIdentityCredential');
    vi.stubEnv('IDENTITY_ENDPOINT', `${origin}/token`);
    vi.stubEnv('IDENTITY_HEADER', 'any');
    // The SDK keeps tokens for the whole process, by identity.
    let identities = 0;
    const opened = () => {
      const credentials = { kind: 'identity' as const, clientId: `identity-${++identities}` };
      return openAzureTarget({ ...options, credentials });
    };
    const code = async (claims: object) => {
      answer = (request) => {
        expect(request.url).toContain(`client_id=identity-${identities}`);
        return { status: 200, body: tokenAnswer(claims) };
      };
      await using target = await opened();
      return await target.head('missing', never).catch((error: { code?: string }) => error.code);
    };
    expect(await code({})).toBe('OBJECT_NOT_FOUND');
    expect(await code({ aud: 'https://vault.azure.net' })).toBe('ACCESS_DENIED');
    expect(await code({ exp: 1_000 })).toBe('ACCESS_DENIED');
    answer = () => ({ status: 400, body: { error: 'invalid_request' } });
    await using refused = await opened();
    await expect(refused.head('missing', never)).rejects.toMatchObject({ code: 'ACCESS_DENIED' });
  });
});

/** The server checks issuer, audience and times, and no signature. */
function tokenAnswer(claims: object): object {
  const now = Math.floor(Date.now() / 1000);
  const payload = {
    iss: 'https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/',
    aud: 'https://storage.azure.com',
    nbf: now - 60,
    iat: now - 60,
    exp: now + 3_600,
    ...claims,
  };
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const access_token = `${part({ alg: 'RS256', typ: 'JWT' })}.${part(payload)}.c2ln`;
  return { access_token, expires_on: String(now + 3_600), resource: payload.aud, token_type: 'Bearer' };
}

describe('Google workload identity federation', () => {
  it("exchanges the host's own token for one that each request carries", async () => {
    const tokenFile = join(folder, 'token');
    await writeFile(tokenFile, 'token-of-the-host');
    await federate(`${origin}/token`, tokenFile);
    answer = (request, body) => {
      if (request.url === '/token') {
        expect(new URLSearchParams(body).get('subject_token')).toBe('token-of-the-host');
        return { status: 200, body: { access_token: 'exchanged', expires_in: 3_600, token_type: 'Bearer' } };
      }
      return { status: request.headers.authorization === 'Bearer exchanged' ? 200 : 401, body: {} };
    };
    await using target = await openGcsTarget({ bucket: 'b', endpoint: origin });
    expect(Math.abs((await target.now(never)).getTime() - Date.now())).toBeLessThan(10_000);

    answer = () => ({ status: 400, body: { error: 'invalid_grant' } });
    await using refused = await openGcsTarget({ bucket: 'b', endpoint: origin });
    await expect(refused.now(never)).rejects.toMatchObject({ code: 'ACCESS_DENIED' });
    await rm(tokenFile);
    await using without = await openGcsTarget({ bucket: 'b', endpoint: origin });
    await expect(without.now(never)).rejects.toMatchObject({ code: 'ACCESS_DENIED' });
  });

  it('says that nobody answers where tokens are given out', async () => {
    const tokenFile = join(folder, 'another-token');
    await writeFile(tokenFile, 'token-of-the-host');
    await federate(`http://127.0.0.1:${await freePort()}/token`, tokenFile);
    await using target = await openGcsTarget({ bucket: 'b', endpoint: origin });
    await expect(target.now(never)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
  });

  /** The file that the cloud's console makes for a host elsewhere, named as its environment does. */
  async function federate(token_url: string, file: string): Promise<void> {
    const configuration = join(folder, 'federation.json');
    const content = {
      type: 'external_account',
      audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      token_url,
      credential_source: { file },
    };
    await writeFile(configuration, JSON.stringify(content));
    vi.stubEnv('GOOGLE_APPLICATION_CREDENTIALS', configuration);
  }
});
