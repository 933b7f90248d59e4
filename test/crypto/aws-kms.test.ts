import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { type AwsKmsOptions, awsKms } from '../../crypto/aws-kms.ts';
import { DataKey } from '../../crypto/data-key.ts';
import { KeyRefused, KeyServiceUnavailable } from '../../crypto/errors.ts';
import { Secret } from '../../crypto/redacted.ts';
import { sampleContext } from '../contract/key-provider.ts';

/** What no KMS server does on demand: throttle, break, hang. The well-behaved part meets a real one in aws-kms.peer.test.ts. */
const never = new AbortController().signal;
const keyId = 'alias/failkit';
const opened: Server[] = [];
afterEach(async () => {
  for (const server of opened.splice(0)) {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  opened.push(server);
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `http://127.0.0.1:${address.port}`;
}

const answering = (status: number, body: string): RequestListener => {
  return (_, response) => response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(body);
};
const failing = (status: number, type: string) => answering(status, JSON.stringify({ __type: type, message: 'no' }));
const hanging: RequestListener = () => undefined;

async function generate(
  endpoint: string,
  more: Partial<AwsKmsOptions> = {},
  signal: AbortSignal = never,
): Promise<unknown> {
  const credentials = { accessKeyId: 'a', secretAccessKey: new Secret('b') };
  using kms = awsKms({ keyId, region: 'eu-central-1', endpoint, credentials, ...more });
  return kms.generateDataKey(sampleContext, signal).then(
    () => 'a data key',
    (error: unknown) => error,
  );
}

describe('AWS KMS that can not answer now', () => {
  it.each([
    [400, 'ThrottlingException'],
    [400, 'RequestLimitExceeded'],
    [500, 'KMSInternalException'],
    [500, 'KeyUnavailableException'],
    [503, 'DependencyTimeoutException'],
    [500, 'InternalFailure'],
    [503, 'SomethingNew'],
    [429, 'SomethingNew'],
  ])('is unavailable: HTTP %i %s', async (status, type) => {
    const error = await generate(await serve(failing(status, type)));
    expect(error).toBeInstanceOf(KeyServiceUnavailable);
    expect((error as Error).message).toContain(`GenerateDataKey with key ${keyId} in eu-central-1 now (${type}`);
  });

  it('is asked once only, for retrying is not its business', async () => {
    let requests = 0;
    const fail = failing(500, 'KMSInternalException');
    const endpoint = await serve((request, response) => {
      requests++;
      fail(request, response);
    });
    expect(await generate(endpoint)).toBeInstanceOf(KeyServiceUnavailable);
    expect(requests).toBe(1);
  });

  it('is unavailable when the connection breaks, or nobody listens', async () => {
    const broken = await serve((request) => request.socket.destroy());
    expect(await generate(broken)).toBeInstanceOf(KeyServiceUnavailable);
    const nobody = await generate('http://127.0.0.1:9');
    expect(nobody).toBeInstanceOf(KeyServiceUnavailable);
    expect((nobody as Error).message).toContain('ECONNREFUSED');
  });

  it('is unavailable when it hangs, within the bound', async () => {
    const error = await generate(await serve(hanging), { timeoutMs: 150 });
    expect(error).toBeInstanceOf(KeyServiceUnavailable);
    expect((error as Error).message).toContain('within 150 ms');
  });

  it('is unavailable when the search for credentials hangs, within the bound', async () => {
    const assumeRole = { roleArn: 'arn:aws:iam::000000000000:role/agent', stsEndpoint: await serve(hanging) };
    const error = await generate('http://127.0.0.1:9', { timeoutMs: 150, assumeRole });
    expect(error).toBeInstanceOf(KeyServiceUnavailable);
    expect((error as Error).message).toContain('within 150 ms');
  });

  it.each([
    ['is cut short', '{"Plaintext":"canary-plaintext'],
    ['is not JSON', 'canary-plaintext'],
    ['has no plaintext', JSON.stringify({ KeyId: 'k', CiphertextBlob: 'AAAA' })],
    ['has no ciphertext', JSON.stringify({ KeyId: 'k', Plaintext: Buffer.alloc(32).toString('base64') })],
  ])('is unavailable when its answer %s, and the answer is shown nowhere', async (_, body) => {
    const error = await generate(await serve(answering(200, body)));
    expect(error).toBeInstanceOf(KeyServiceUnavailable);
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain('canary');
  });
});

describe('AWS KMS that says no', () => {
  it.each([
    [400, 'AccessDeniedException', /key policy/],
    [400, 'KMSInvalidStateException', /pending deletion/],
    [400, 'UnrecognizedClientException', /credentials/],
    [400, 'ExpiredTokenException', /credentials/],
    [400, 'InvalidSignatureException', /the clock is right/],
    [400, 'IncorrectKeyException', /made by another key/],
    [400, 'InvalidCiphertextException', /altered/],
    [400, 'SomethingNew', /SomethingNew, HTTP 400/],
    [403, 'SomethingNew', /SomethingNew, HTTP 403/],
  ])('refuses: HTTP %i %s', async (status, type, message) => {
    const error = await generate(await serve(failing(status, type)));
    expect(error).toBeInstanceOf(KeyRefused);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain(`refused GenerateDataKey with key ${keyId} in eu-central-1`);
  });

  it('refuses where no credentials can be found', async () => {
    const empty = {
      AWS_EC2_METADATA_DISABLED: 'true',
      HOME: '/nonexistent',
      AWS_PROFILE: undefined,
      AWS_ACCESS_KEY_ID: undefined,
    };
    const before = { ...process.env };
    for (const [name, value] of Object.entries(empty)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    try {
      using kms = awsKms({ keyId, region: 'eu-central-1', endpoint: 'http://127.0.0.1:9' });
      const asked = kms.generateDataKey(sampleContext, never);
      await expect(asked).rejects.toBeInstanceOf(KeyRefused);
      await expect(asked).rejects.toThrow('no usable AWS credentials were found');
    } finally {
      process.env = before;
    }
  });
});

describe('an error from AWS KMS', () => {
  it.each([
    ['refuses', failing(400, 'DisabledException')],
    ['fails', failing(500, 'KMSInternalException')],
    ['sends a page that is not JSON', answering(502, '<html>bad gateway</html>')],
    ['breaks the connection', ((request) => request.socket.destroy()) satisfies RequestListener],
    ['hangs', hanging],
  ])('carries no data key when the server %s', async (_, listener) => {
    const canary = 'canary-data-key-of-thirty-two-by';
    using key = new DataKey(Buffer.from(canary));
    const credentials = { accessKeyId: 'a', secretAccessKey: new Secret('canary-secret') };
    using kms = awsKms({ keyId, region: 'eu-central-1', endpoint: await serve(listener), credentials, timeoutMs: 300 });
    const error = await kms.wrap(key, sampleContext, never).catch((reason: unknown) => reason);
    const printed = inspect(error, { depth: 12, showHidden: true });
    expect(printed).toMatch(/KeyDisabled|KeyServiceUnavailable/);
    for (const secret of ['canary', Buffer.from(canary).toString('base64'), 'Signature='])
      expect(printed).not.toContain(secret);
  });
});

describe('a call to AWS KMS', () => {
  it('ends with the reason when cancelled on the way', async () => {
    const stop = new AbortController();
    const reason = new Error('stopped');
    const endpoint = await serve(() => stop.abort(reason));
    expect(await generate(endpoint, {}, stop.signal)).toBe(reason);
  });

  it('carries the key, the encryption context and nothing else', async () => {
    let body = '';
    const endpoint = await serve((request, response) => {
      request.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      request.on('end', () => response.writeHead(400).end('{}'));
    });
    await generate(endpoint);
    expect(JSON.parse(body)).toEqual({
      KeyId: keyId,
      KeySpec: 'AES_256',
      EncryptionContext: {
        app: 'failkit',
        format: '1',
        repository: '11'.repeat(16),
        machine: '22'.repeat(16),
        epoch: '7',
      },
    });
  });
});
