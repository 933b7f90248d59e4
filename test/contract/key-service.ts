import { readFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataKey } from '../../crypto/data-key.ts';
import type { KeyProvider, WrappedKey } from '../../crypto/key-provider.ts';
import { makeCertificate } from '../peers/tls-certificate.ts';
import { sampleContext } from './key-provider.ts';

/** What every key service across a network must do besides the contract of key providers: each way to say no has its name. */
export interface KeyServiceCase {
  readonly name: string;
  readonly start: () => Promise<KeyServiceSite>;
  /** How the service says what no server here says on demand. Left out: it never says it. */
  readonly says: {
    readonly throttled: ScriptedAnswer;
    readonly broken: ScriptedAnswer;
    readonly clockSkewed?: ScriptedAnswer;
    readonly keyMissing: ScriptedAnswer;
  };
  /** What its keys can be. */
  readonly keysCanBe: readonly ('disabled' | 'pending deletion')[];
}

export interface ScriptedAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: object;
}

export interface KeyServiceSite extends AsyncDisposable {
  /** Makes a key and returns its name. */
  newKey(): Promise<string>;
  /** `endpoint`: another server in the service's place. */
  open(key: string, other?: { readonly endpoint: string; readonly timeoutMs?: number }): Promise<KeyProvider>;
  /** With credentials that the service knows, and that may not use the key. */
  openDenied(key: string): Promise<KeyProvider>;
  /** Makes a new version, for new wraps. */
  rotate(key: string): Promise<void>;
  /** Of a kind that `keysCanBe` names. */
  disable?(key: string): Promise<void>;
  enable?(key: string): Promise<void>;
  scheduleDeletion?(key: string): Promise<void>;
}

const never = new AbortController().signal;
const silence: RequestListener = () => undefined;
const canary = 'canary-data-key-of-thirty-two-by';

export function keyServiceContract({ name, start, says, keysCanBe }: KeyServiceCase): void {
  describe(`key service contract: ${name}`, () => {
    let site: KeyServiceSite;
    let key: string;
    let service: KeyProvider;
    let wrapped: WrappedKey;
    const servers: Server[] = [];

    beforeAll(async () => {
      site = await start();
      key = await site.newKey();
      service = await site.open(key);
      wrapped = await wrapBy(service);
    }, 180_000);
    afterAll(async () => {
      for (const server of servers) server.close();
      await site?.[Symbol.asyncDispose]();
    });

    const answering = async (answer: ScriptedAnswer | RequestListener, timeoutMs = 30_000): Promise<KeyProvider> => {
      const listener: RequestListener = typeof answer === 'function' ? answer : scripted(answer);
      const server = createServer(listener).listen(0, '127.0.0.1');
      servers.push(server);
      await new Promise((resolve) => server.once('listening', resolve));
      const { port } = server.address() as AddressInfo;
      return await site.open(key, { endpoint: `http://127.0.0.1:${port}`, timeoutMs });
    };

    it('names a wrong context', async () => {
      const unwrapping = service.unwrap(wrapped, { ...sampleContext, epoch: 8 }, never);
      expect(await codeOf(unwrapping)).toBe('KEY_WRAP_MISMATCH');
    });

    it('names a wrap that another key made', async () => {
      const other = await site.open(await site.newKey());
      expect(['KEY_WRONG', 'KEY_WRAP_MISMATCH']).toContain(await codeOf(other.unwrap(wrapped, sampleContext, never)));
    });

    it('names credentials that may not use the key', async () => {
      const denied = await site.openDenied(key);
      expect(await codeOf(denied.wrap(DataKey.generate(), sampleContext, never))).toBe('KEY_DENIED');
      expect(await codeOf(denied.unwrap(wrapped, sampleContext, never))).toBe('KEY_DENIED');
    });

    it('unwraps after a rotation what was wrapped before it, and wraps anew', async () => {
      const rotating = await site.newKey();
      const provider = await site.open(rotating);
      using first = DataKey.generate();
      const before = await provider.wrap(first, sampleContext, never);
      await site.rotate(rotating);
      const after = await provider.wrap(first, sampleContext, never);
      for (const wrap of [before, after]) {
        using again = await provider.unwrap(wrap, sampleContext, never);
        expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
      }
    });

    const itWhen = (exists: boolean, title: string, work: () => Promise<void>) => void (exists && it(title, work));

    itWhen(keysCanBe.includes('disabled'), 'names a disabled key', async () => {
      const disabled = await site.newKey();
      const provider = await site.open(disabled);
      const wrap = await wrapBy(provider);
      await site.disable?.(disabled);
      expect(await codeOf(provider.unwrap(wrap, sampleContext, never))).toBe('KEY_DISABLED');
      expect(await codeOf(provider.wrap(DataKey.generate(), sampleContext, never))).toBe('KEY_DISABLED');
      await site.enable?.(disabled);
      (await provider.unwrap(wrap, sampleContext, never))[Symbol.dispose]();
    });

    itWhen(keysCanBe.includes('pending deletion'), 'names a key that is pending deletion', async () => {
      const dying = await site.newKey();
      const provider = await site.open(dying);
      const wrap = await wrapBy(provider);
      await site.scheduleDeletion?.(dying);
      expect(await codeOf(provider.unwrap(wrap, sampleContext, never))).toBe('KEY_PENDING_DELETION');
    });

    it('names a key that does not exist', async () => {
      const provider = await answering(says.keyMissing);
      expect(await codeOf(provider.unwrap(wrapped, sampleContext, never))).toBe('KEY_NOT_FOUND');
    });

    it('names a service that asks for fewer requests', async () => {
      const provider = await answering(says.throttled);
      expect(await codeOf(provider.unwrap(wrapped, sampleContext, never))).toBe('KEY_SERVICE_THROTTLED');
    });

    itWhen(says.clockSkewed !== undefined, 'names a wrong clock', async () => {
      const provider = await answering(says.clockSkewed ?? says.broken);
      expect(await codeOf(provider.unwrap(wrapped, sampleContext, never))).toBe('KEY_CLOCK_SKEWED');
    });

    it.each<[string, ScriptedAnswer | RequestListener]>([
      ['is broken', says.broken],
      ['breaks the connection', (request) => request.socket.destroy()],
      ['does not answer', silence],
      ['answers with a page', (_, response) => response.writeHead(200).end(`<html>${canary}</html>`)],
      ['answers with nothing in it', { status: 200, body: {} }],
    ])('names a service that %s, and shows no key', async (_, answer) => {
      const provider = await answering(answer, answer === silence ? 200 : undefined);
      using data = new DataKey(Buffer.from(canary));
      const error = await provider.wrap(data, sampleContext, never).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'KEY_SERVICE_UNAVAILABLE' });
      const printed = inspect(error, { depth: 12, showHidden: true });
      for (const secret of [canary, Buffer.from(canary).toString('base64')]) expect(printed).not.toContain(secret);
    });

    it('names a service where nobody listens', async () => {
      const provider = await site.open(key, { endpoint: 'http://127.0.0.1:9' });
      expect(await codeOf(provider.unwrap(wrapped, sampleContext, never))).toBe('KEY_SERVICE_UNAVAILABLE');
    });

    it('names a service whose certificate is not trusted', async () => {
      await using certificate = await makeCertificate();
      const [cert, tlsKey] = [await readFile(certificate.certFile), await readFile(certificate.keyFile)];
      const server = createHttpsServer({ cert, key: tlsKey }, scripted(says.broken)).listen(0, '127.0.0.1');
      servers.push(server);
      await new Promise((resolve) => server.once('listening', resolve));
      const endpoint = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
      const provider = await site.open(key, { endpoint });
      expect(await codeOf(provider.unwrap(wrapped, sampleContext, never))).toBe('KEY_SERVICE_UNTRUSTED');
    });

    it('ends with the reason when cancelled on the way', async () => {
      const stop = new AbortController();
      const reason = new Error('stopped');
      const provider = await answering(() => stop.abort(reason));
      await expect(provider.unwrap(wrapped, sampleContext, stop.signal)).rejects.toBe(reason);
    });
  });
}

function scripted({ status, headers, body }: ScriptedAnswer): RequestListener {
  return (request, response) => {
    request.resume();
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  };
}

async function wrapBy(provider: KeyProvider): Promise<WrappedKey> {
  const { key, wrapped } = await provider.generateDataKey(sampleContext, never);
  key[Symbol.dispose]();
  return wrapped;
}

async function codeOf(doing: Promise<unknown>): Promise<unknown> {
  const error = await doing.then(
    () => null,
    (reason: unknown) => reason,
  );
  return error instanceof Error && 'code' in error ? error.code : error;
}
