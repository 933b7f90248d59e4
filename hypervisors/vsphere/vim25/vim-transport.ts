import type { X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type RequestOptions, request } from 'node:https';
import { VsphereAnswerInvalid, VsphereTimedOut, VsphereUnreachable, VsphereUntrusted } from '../vsphere-errors.ts';
import { type ServerTrust, trustedAgent } from './trusted-agent.ts';

/** HTTP to one server: what is sent and what comes back, each within its bounds. */

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

export interface TransportSettings {
  readonly address: ServerAddress;
  readonly trust: ServerTrust;
  readonly proxy: { reveal(): string } | null;
  readonly answerBytesMax?: number;
}

export interface VimRequest {
  readonly path: string;
  /** Null: a GET, or what `method` says. */
  readonly body: string | null;
  readonly method?: 'DELETE';
  /** What an answer must be; `json` with any status, which the caller looks at. */
  readonly answers?: 'xml' | 'json';
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

export interface VimResponse {
  readonly status: number;
  readonly text: string;
  /** `name=value` of each cookie that is set, as it was written. */
  readonly cookies: readonly string[];
}

const mebibyte = 1024 * 1024;
/** Parsed, XML takes forty times the memory: a list of 100,000 changed areas is within this. */
const answerBytesMaxDefault = { xml: 8 * mebibyte, json: 32 * mebibyte };
const socketsMax = 8;
/** What says that the server is not ready, or that something in between answers for it. */
const refusalCharsMax = 200;

export class VimTransport implements Disposable {
  readonly where: string;
  readonly #address: ServerAddress;
  readonly #answerBytesMax: { readonly xml: number; readonly json: number };
  readonly #agent: ReturnType<typeof trustedAgent>;
  #certificate: X509Certificate | null = null;

  constructor({ address, trust, proxy, answerBytesMax }: TransportSettings) {
    this.where = `vSphere at ${address.host}${address.port === 443 ? '' : `:${address.port}`}`;
    this.#address = address;
    this.#answerBytesMax =
      answerBytesMax === undefined ? answerBytesMaxDefault : { xml: answerBytesMax, json: answerBytesMax };
    const onTrusted = (certificate: X509Certificate): void => {
      this.#certificate = certificate;
    };
    this.#agent = trustedAgent(this.where, { trust, proxy, socketsMax, onTrusted });
  }

  /** What the newest connection showed and was trusted for; null before the first. Others derive their pins from it. */
  get certificate(): X509Certificate | null {
    return this.#certificate;
  }

  /** Throws VsphereUnreachable, VsphereUntrusted, VsphereTimedOut or VsphereAnswerInvalid; the signal's reason passes through. */
  async send(asked: VimRequest, signal: AbortSignal): Promise<VimResponse> {
    signal.throwIfAborted();
    const limit = AbortSignal.timeout(asked.timeoutMs);
    try {
      const response = await this.#exchange(asked, AbortSignal.any([signal, limit]));
      return await this.#read(response, asked);
    } catch (cause) {
      signal.throwIfAborted();
      if (limit.aborted)
        throw new VsphereTimedOut(`${this.where} gave no whole answer within ${asked.timeoutMs / 1000} s`, { cause });
      throw this.#failure(cause);
    }
  }

  #exchange({ path, body, headers, method }: VimRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { host, port } = this.#address;
    const options: RequestOptions = {
      agent: this.#agent,
      host,
      port,
      path,
      method: method ?? (body === null ? 'GET' : 'POST'),
      headers: { ...headers, ...(body !== null && { 'content-length': String(Buffer.byteLength(body)) }) },
      signal,
    };
    return new Promise((resolve, reject) => {
      const sent = request(options, resolve);
      sent.on('error', reject);
      sent.end(body ?? undefined);
    });
  }

  async #read(response: IncomingMessage, { path, answers = 'xml' }: VimRequest): Promise<VimResponse> {
    const parts: Uint8Array[] = [];
    const bytesMax = this.#answerBytesMax[answers];
    let bytes = 0;
    for await (const part of response) {
      if (!(part instanceof Uint8Array)) continue;
      bytes += part.length;
      if (bytes > bytesMax) throw new VsphereAnswerInvalid(`${this.where} answers with more than ${bytesMax} bytes`);
      parts.push(part);
    }
    const status = response.statusCode ?? 0;
    const text = Buffer.concat(parts).toString('utf8');
    const cookies = (response.headers['set-cookie'] ?? []).map((line) => line.split(';')[0] ?? '');
    if (answers === 'json') return { status, text, cookies };
    // A proxy in between, and a vCenter that starts, answer in HTML: that is never taken for SOAP.
    const type = response.headers['content-type'] ?? 'no type';
    if (!/^(text|application)\/(soap\+)?xml\b/i.test(type))
      throw new VsphereUnreachable(
        `${this.where} answered ${path} with status ${status} and ${type.slice(0, refusalCharsMax)} instead of XML: is it starting, or is it no vSphere?`,
      );
    if (status !== 200 && status !== 500)
      throw new VsphereUnreachable(`${this.where} answered ${path} with status ${status}`);
    return { status, text, cookies };
  }

  #failure(cause: unknown): Error {
    const own = [VsphereUnreachable, VsphereUntrusted, VsphereTimedOut, VsphereAnswerInvalid];
    if (own.some((kind) => cause instanceof kind)) return cause as Error;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    if (untrusting.test(code))
      return new VsphereUntrusted(
        `${this.where}: its certificate is not trusted (${code}): give its thumbprint, or the authority that signed it`,
        { cause },
      );
    return new VsphereUnreachable(`${this.where} can't be reached (${code})`, { cause });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}

/** Codes of OpenSSL's and Node's verification. */
const untrusting =
  /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH|ERR_TLS_CERT_ALTNAME_INVALID|ERR_SSL_.*CERT)/;
