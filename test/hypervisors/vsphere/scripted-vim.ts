/** An HTTPS server that answers as it is told: for what no vCenter would say, and for answers in the shapes that real ones have. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { thumbprintOf } from '../../../hypervisors/vsphere/vim25/trusted-agent.ts';
import { type LoopbackCertificate, makeCertificate } from '../../peers/tls-certificate.ts';

export interface Asked {
  readonly method: string;
  readonly body: string;
  readonly cookie: string | undefined;
  readonly action: string | undefined;
}

export type Answer = string | ((response: ServerResponse, asked: Asked) => void);

export interface ScriptedVim extends AsyncDisposable {
  readonly port: number;
  readonly certificate: LoopbackCertificate;
  readonly server: Server;
  /** Since the last reset. */
  readonly asked: readonly Asked[];
  /** Forgets what it was told and asked. */
  reset(): void;
  /** What the next calls of a method are answered by; the last stays. */
  answer(method: string, ...answers: readonly Answer[]): void;
  /** From now on new connections are shown another certificate, and the old ones are closed. */
  exchangeCertificate(): Promise<void>;
}

export function fixture(name: string): string {
  return readFileSync(join(import.meta.dirname, 'fixtures', name), 'utf8');
}

export function pinOf({ certFile }: Pick<LoopbackCertificate, 'certFile'>): string {
  return thumbprintOf(new X509Certificate(readFileSync(certFile)));
}

export async function startScriptedVim(): Promise<ScriptedVim> {
  const certificate = await makeCertificate();
  const others: LoopbackCertificate[] = [];
  const keyOf = ({ certFile, keyFile }: LoopbackCertificate) => ({
    cert: readFileSync(certFile),
    key: readFileSync(keyFile),
  });
  const script = new Map<string, readonly Answer[]>();
  const asked: Asked[] = [];
  const server = createServer(keyOf(certificate), async (request, response) => {
    const body = await text(request);
    const method = request.method === 'GET' ? 'versions' : (/<soapenv:Body><(\w+)/.exec(body)?.[1] ?? '');
    const call = { method, body, cookie: request.headers.cookie, action: String(request.headers.soapaction) };
    asked.push(call);
    const [next = 'nothing', ...more] = script.get(method) ?? [];
    if (more.length > 0) script.set(method, more);
    if (typeof next === 'function') return next(response, call);
    response.writeHead(next.includes(':Fault>') ? 500 : 200, { 'content-type': 'text/xml; charset=utf-8' }).end(next);
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    ...{ server, certificate, asked, port: (server.address() as AddressInfo).port },
    answer: (method, ...answers) => void script.set(method, answers),
    reset() {
      asked.length = 0;
      script.clear();
      script.set('versions', [fixture('versions.xml')]);
      script.set('RetrieveServiceContent', [fixture('service-content.xml')]);
      script.set('Login', [letIn]);
      script.set('Logout', [responseOf('Logout', '')]);
    },
    async exchangeCertificate() {
      const other = await makeCertificate();
      others.push(other);
      server.setSecureContext(keyOf(other));
      server.closeAllConnections();
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      for (const each of [certificate, ...others]) await each[Symbol.asyncDispose]();
    },
  };
}

const letIn = letInAs('0badc0de');

/** The cookie's quotes are part of it. */
export function letInAs(session: string): (response: ServerResponse) => void {
  return (response) => {
    response.setHeader('set-cookie', `vmware_soap_session="${session}"; Path=/; HttpOnly; Secure; `);
    response.writeHead(200, { 'content-type': 'text/xml; charset=utf-8' }).end(fixture('login.xml'));
  };
}

/** `inside`: the elements of the answer. */
export function responseOf(method: string, inside: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><${method}Response xmlns="urn:vim25">${inside}</${method}Response></soapenv:Body></soapenv:Envelope>`;
}
