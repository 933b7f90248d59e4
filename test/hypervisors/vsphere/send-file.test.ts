/** A file that is sent to a server that takes it, answers too early, or goes away. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Agent, createServer } from 'node:https';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sendFile } from '../../../hypervisors/vsphere/datastore/send-file.ts';
import { thumbprintOf, trustedAgent } from '../../../hypervisors/vsphere/vim25/trusted-agent.ts';
import { VsphereUnreachable } from '../../../hypervisors/vsphere/vsphere-errors.ts';
import { makeCertificate } from '../../peers/tls-certificate.ts';

const never = new AbortController().signal;
const pieceBytes = 1024 * 1024;
const pieces = 20;

describe('a file that is sent', () => {
  const stack = new AsyncDisposableStack();
  let agent: Agent;
  let port = 0;
  let got = Buffer.alloc(0);
  beforeAll(async () => {
    const { certFile, keyFile } = stack.use(await makeCertificate());
    const cert = readFileSync(certFile);
    const thumbprint = thumbprintOf(new X509Certificate(cert));
    const settings = { proxy: null, socketsMax: 4, onTrusted: () => undefined };
    agent = stack.adopt(trustedAgent('vSphere', { ...settings, trust: { thumbprint, caFile: null } }), (each) =>
      each.destroy(),
    );
    const server = createServer({ cert, key: readFileSync(keyFile) }, async (asked, answer) => {
      if (asked.url === '/refuses') answer.writeHead(507, { connection: 'close' }).end('full');
      else if (asked.url === '/hangs-up') asked.once('data', () => asked.socket.destroy());
      else {
        got = await buffer(asked).catch(() => Buffer.alloc(0));
        answer.writeHead(201).end();
      }
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(null)));
    stack.defer(() => new Promise((resolve) => server.close(() => resolve())));
    stack.defer(() => server.closeAllConnections());
    const address = server.address();
    port = typeof address === 'object' && address !== null ? address.port : 0;
  });
  afterAll(() => stack.disposeAsync());

  const send = (path: string, content: () => AsyncIterable<Uint8Array>, signal = never) =>
    sendFile(
      { where: 'vSphere', agent, host: '127.0.0.1', port, path, cookie: 'a=b' },
      pieces * pieceBytes,
      content,
      signal,
    );

  async function* wholeFile() {
    for (let i = 0; i < pieces; i++) yield new Uint8Array(pieceBytes).fill(i);
  }

  it('arrives whole', async () => {
    expect(await send('/takes', wholeFile)).toEqual({ status: 201 });
    expect([got.length, got[0], got.at(-1)]).toEqual([pieces * pieceBytes, 0, pieces - 1]);
  });

  it('ends with the answer of a server that takes no more', async () => {
    expect(await send('/refuses', wholeFile)).toEqual({ status: 507 });
  });

  it('ends as unreachable where the server goes away', async () => {
    await expect(send('/hangs-up', wholeFile)).rejects.toThrow(VsphereUnreachable);
  });

  it('passes on what its own source fails with, and the reason of an abort', async () => {
    const broken = new Error('the disk is broken');
    const breaking = async function* () {
      yield new Uint8Array(pieceBytes);
      throw broken;
    };
    await expect(send('/takes', breaking)).rejects.toBe(broken);
    const stop = new AbortController();
    const reason = new Error('enough');
    const stopping = async function* () {
      yield new Uint8Array(pieceBytes);
      stop.abort(reason);
      yield new Uint8Array(pieceBytes);
    };
    await expect(send('/takes', stopping, stop.signal)).rejects.toBe(reason);
  });
});
