import { boundedRequest } from './bounded-request.ts';
import { type AuthorizationOf, type GcsConnectionOptions, gcsAuthorization, gcsEndpoint } from './gcs-connection.ts';
import { type Asked, GcsFailure, gcsError, NoToken } from './gcs-errors.ts';
import { closeAgents, type HttpAgents } from './http-agents.ts';
import { answerText, exchange, type HttpAnswer, type HttpRequest } from './http-exchange.ts';
import { checkObjectName } from './object-name.ts';
import type { Pace } from './storage-target.ts';

export interface GcsOptions extends GcsConnectionOptions {
  /** Our share of the bucket; a slash is added at its end. Left out: the whole bucket. */
  readonly prefix?: string;
  /** How objects are locked when a put asks for it. A locked retention can be shortened by nobody, Google included. Left out: locked. */
  readonly retentionMode?: 'Locked' | 'Unlocked';
}

/** A call of the JSON API, cloud.google.com/storage/docs/json_api/v1 */
export interface GcsCall {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Below the bucket: `/o/name`; empty for the bucket itself. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: HttpRequest['body'];
  /** Puts have an address of their own. */
  readonly upload?: true;
}

/** The bucket with what every request needs: where our objects are, and errors and cancellation as the contract has them. */
export class GcsBucket {
  readonly prefix: string;
  /** `gs://bucket`. */
  readonly place: string;
  readonly retentionMode: 'Locked' | 'Unlocked';
  readonly #name: string;
  readonly #endpoint: string;
  readonly #agents: HttpAgents;
  readonly #authorization: AuthorizationOf;
  /** A missing object looks like a missing bucket; once the bucket was seen, it need not be asked. */
  seen = false;
  /** Whether this process has seen that the store locks what it is asked to. */
  lockSeen = false;

  constructor(options: GcsOptions, agents: HttpAgents) {
    const prefix = options.prefix ?? '';
    this.prefix = prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`;
    this.place = `gs://${options.bucket}`;
    this.retentionMode = options.retentionMode ?? 'Locked';
    this.#name = options.bucket;
    this.#endpoint = gcsEndpoint(options);
    this.#agents = agents;
    this.#authorization = gcsAuthorization(options, agents);
  }

  /** The path of an object in a call. */
  object(name: string): string {
    checkObjectName(name);
    return `/o/${encodeURIComponent(this.prefix + name)}`;
  }

  subject(name: string): string {
    return `${this.place}/${name === '' ? '' : this.prefix + name}`;
  }

  /** As `boundedRequest`, with errors as the contract has them. */
  async request<T>(
    doing: string,
    name: string,
    signal: AbortSignal,
    work: (signal: AbortSignal, pace: Pace | undefined) => Promise<T>,
    pace?: Pace,
  ): Promise<T> {
    const subject = this.subject(name);
    const named = (error: unknown) => gcsError(error, { subject, doing });
    const result = await boundedRequest({ subject, doing, pace, named }, signal, work);
    this.seen = true;
    return result;
  }

  /** Resolves with an answer that is a success; its body is still to be read. Throws GcsFailure otherwise. */
  async call(call: GcsCall, signal: AbortSignal): Promise<HttpAnswer> {
    const api = call.upload === true ? '/upload/storage/v1' : '/storage/v1';
    const query = new URLSearchParams(call.query).toString();
    const url = `${this.#endpoint}${api}/b/${encodeURIComponent(this.#name)}${call.path}?${query}`;
    const headers = { ...call.headers, ...(await this.#authorize(url)) };
    const answer = await exchange(this.#agents, { method: call.method, url, headers, body: call.body ?? [] }, signal);
    if (answer.status < 200 || answer.status > 299) throw new GcsFailure(asked(call), answer, await answerText(answer));
    return answer;
  }

  async #authorize(url: string): Promise<Readonly<Record<string, string>>> {
    try {
      return await this.#authorization(url);
    } catch (error) {
      throw new NoToken('no token', { cause: error });
    }
  }

  close(): void {
    closeAgents(this.#agents);
  }
}

function asked({ upload, path }: GcsCall): Asked {
  if (upload === true) return 'put';
  return path === '/o' || path === '' ? 'listing' : 'object';
}
