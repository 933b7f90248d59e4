import type { X509Certificate } from 'node:crypto';
import type { Element } from '@xmldom/xmldom';
import { untilAborted } from '../../until-aborted.ts';
import {
  type FaultDetail,
  VsphereAnswerInvalid,
  VsphereDenied,
  VsphereLoginRefused,
  VsphereRefused,
  VsphereUnreachable,
} from '../vsphere-errors.ts';
import { readAnswer, requestOf, returnedBy } from './soap.ts';
import {
  childOf,
  childrenOf,
  childText,
  parseSoapXml,
  type Reference,
  referenceOf,
  tag,
  type Xml,
} from './soap-xml.ts';
import { type TransportSettings, VimTransport } from './vim-transport.ts';

/** Calls of vim25 under one login, which is made when it is first needed and once again where the server forgot it. */

export interface SessionSettings extends TransportSettings {
  readonly user: string;
  readonly password: { reveal(): string };
  readonly keepAliveMs?: number;
}

export interface CallOptions {
  /** Asked twice it does the same: it is sent again when the connection broke. */
  readonly repeatable?: boolean;
  readonly timeoutMs?: number;
}

/** What the server is, and the objects that everything else begins at; their names differ between vCenter and ESXi. */
export interface ServiceContent {
  readonly about: {
    readonly product: string;
    readonly apiVersion: string;
    /** Of this vCenter; null for an ESXi. */
    readonly instanceUuid: string | null;
    readonly isVirtualCenter: boolean;
  };
  readonly rootFolder: Reference;
  readonly propertyCollector: Reference;
  readonly viewManager: Reference;
  readonly sessionManager: Reference;
  readonly searchIndex: Reference;
  readonly authorizationManager: Reference | null;
  readonly fileManager: Reference | null;
}

const callTimeoutMs = 60_000;
const logoutTimeoutMs = 5_000;
/** A login that is idle for half an hour ends, and a disk may be read for longer than that between two calls. */
const keepAliveMsDefault = 10 * 60 * 1000;
/** The newest release of the API whose answers this was written for. */
const apiNewest = '8.0.3.0';
const apiFallback = '6.7';
const cookieName = 'vmware_soap_session';

interface Login {
  readonly done: Promise<void>;
}

export class VimSession implements AsyncDisposable {
  readonly #transport: VimTransport;
  readonly #settings: SessionSettings;
  #cookie: string | null = null;
  #version: Promise<string> | null = null;
  #content: Promise<ServiceContent> | null = null;
  /** In force, or under way. */
  #login: Login | null = null;
  /** What several callers wait for goes on when one of them gives up, and no longer than this is open. */
  readonly #life = new AbortController();
  #keepAlive: NodeJS.Timeout | null = null;

  constructor(settings: SessionSettings) {
    this.#settings = settings;
    this.#transport = new VimTransport(settings);
  }

  /** For messages. */
  get where(): string {
    return this.#transport.where;
  }

  /** Of the server, as the newest trusted connection showed it. */
  get certificate(): X509Certificate | null {
    return this.#transport.certificate;
  }

  /** Asked once: what it holds does not change while the server runs. */
  async content(signal: AbortSignal): Promise<ServiceContent> {
    this.#content ??= this.#askContent(this.#life.signal).catch((error: unknown) => {
      this.#content = null;
      throw error;
    });
    return await untilAborted(this.#content, signal);
  }

  /**
   * Returns the method's response. Throws VsphereRefused with the fault, VsphereDenied where a privilege is missing, VsphereLoginRefused,
   * and what VimTransport throws. `parameters`: in the order of the WSDL.
   */
  async call(
    method: string,
    self: Reference,
    parameters: readonly Xml[],
    signal: AbortSignal,
    options: CallOptions = {},
  ): Promise<Element> {
    const login = await this.#loggedIn(signal);
    const answer = await this.#send(method, self, parameters, signal, options);
    if (answer.kind === 'answer') return answer.response;
    if (answer.detail.fault !== 'NotAuthenticated') throw this.#refusal(method, answer.detail);
    // The call was not carried out, so that it may be sent again, whatever it does. Once: a second refusal has another reason.
    if (this.#login === login) this.#login = null;
    await this.#loggedIn(signal);
    const second = await this.#send(method, self, parameters, signal, options);
    if (second.kind === 'answer') return second.response;
    throw this.#refusal(method, second.detail);
  }

  /** What the server's other paths know the login by. `refused`: one that it forgot, so that a new login is needed. */
  async cookie(signal: AbortSignal, refused: string | null = null): Promise<string> {
    if (refused !== null && refused === this.#cookie) this.#login = null;
    await this.#loggedIn(signal);
    if (this.#cookie === null) throw new VsphereAnswerInvalid(`${this.where} let us in, and gave no cookie`);
    return this.#cookie;
  }

  /** Ends the login, where there is one; a server that can't be asked any more forgets it by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#keepAlive ?? undefined);
    try {
      if (this.#login === null || this.#content === null) return;
      const limit = AbortSignal.timeout(logoutTimeoutMs);
      const { sessionManager } = await this.#content;
      await untilAborted(this.#login.done, limit);
      await this.#send('Logout', sessionManager, [], limit, { timeoutMs: logoutTimeoutMs });
    } catch {
      // Nothing depends on it.
    } finally {
      this.#life.abort();
      this.#transport[Symbol.dispose]();
    }
  }

  /** Returns which login it is: of several calls that are refused at once, one makes a new one. */
  async #loggedIn(signal: AbortSignal): Promise<Login> {
    const { sessionManager } = await this.content(signal);
    this.#login ??= this.#beginLogin(sessionManager);
    const login = this.#login;
    await untilAborted(login.done, signal);
    return login;
  }

  #beginLogin(sessionManager: Reference): Login {
    const login = { done: this.#logIn(sessionManager) };
    login.done.catch(() => {
      if (this.#login === login) this.#login = null;
    });
    return login;
  }

  async #logIn(sessionManager: Reference): Promise<void> {
    const { user, password } = this.#settings;
    this.#cookie = null;
    const credentials = [tag('userName', user), tag('password', password.reveal())];
    const answer = await this.#send('Login', sessionManager, credentials, this.#life.signal, {});
    if (answer.kind === 'answer') {
      this.#keepAlive ??= setInterval(
        () => this.#stayLoggedIn(),
        this.#settings.keepAliveMs ?? keepAliveMsDefault,
      ).unref();
      return;
    }
    const { fault, words } = answer.detail;
    if (fault === 'InvalidLogin')
      throw new VsphereLoginRefused(
        `${this.where} does not let ${user} in: user or password are wrong, or it is locked`,
      );
    throw new VsphereLoginRefused(`${this.where} does not let ${user} in: ${fault}: ${words}`);
  }

  /** Where it fails, the next call finds out and says why. */
  #stayLoggedIn(): void {
    const instance = { type: 'ServiceInstance', id: 'ServiceInstance' };
    this.#send('CurrentTime', instance, [], AbortSignal.timeout(callTimeoutMs), {}).catch(() => undefined);
  }

  async #askContent(signal: AbortSignal): Promise<ServiceContent> {
    const instance = { type: 'ServiceInstance', id: 'ServiceInstance' };
    const answer = await this.#send('RetrieveServiceContent', instance, [], signal, { repeatable: true });
    if (answer.kind === 'fault') throw this.#refusal('RetrieveServiceContent', answer.detail);
    return readContent(returnedBy(answer.response, this.where), this.where);
  }

  async #send(
    method: string,
    self: Reference,
    parameters: readonly Xml[],
    signal: AbortSignal,
    { repeatable = false, timeoutMs = callTimeoutMs }: CallOptions,
  ) {
    const version = await this.#apiVersion(signal);
    const asked = {
      path: '/sdk',
      body: requestOf(method, self, parameters),
      timeoutMs,
      headers: {
        'content-type': 'text/xml; charset=utf-8',
        soapaction: `"urn:vim25/${version}"`,
        ...(this.#cookie !== null && { cookie: this.#cookie }),
      },
    };
    const send = () => this.#transport.send(asked, signal);
    const response = await send().catch((error: unknown) => {
      if (!repeatable || !(error instanceof VsphereUnreachable)) throw error;
      return send();
    });
    const cookie = response.cookies.find((each) => each.startsWith(`${cookieName}=`));
    if (cookie !== undefined) this.#cookie = cookie;
    return readAnswer(response.text, method, this.where);
  }

  /** Without it some calls speak the oldest API that the server knows. */
  async #apiVersion(signal: AbortSignal): Promise<string> {
    this.#version ??= this.#askVersion(this.#life.signal).catch((error: unknown) => {
      this.#version = null;
      throw error;
    });
    return await untilAborted(this.#version, signal);
  }

  async #askVersion(signal: AbortSignal): Promise<string> {
    const asked = { path: '/sdk/vimServiceVersions.xml', body: null, headers: {}, timeoutMs: callTimeoutMs };
    const { text } = await this.#transport.send(asked, signal);
    return newestCommon(versionsIn(parseSoapXml(text, `${this.where}: its list of versions`)));
  }

  #refusal(method: string, detail: FaultDetail): Error {
    const { fault, words, privilege } = detail;
    const says = `${this.where} refused ${method}: ${fault}${words === '' ? '' : `: ${words}`}`;
    if (fault !== 'NoPermission') return new VsphereRefused(says, detail);
    return new VsphereDenied(`${says}${privilege === null ? '' : ` (privilege ${privilege})`}`);
  }
}

function versionsIn(root: Element): readonly string[] {
  const spaces = childrenOf(root, 'namespace').filter((each) => childText(each, 'name')?.trim() === 'urn:vim25');
  return spaces.flatMap((each) => [
    childText(each, 'version') ?? '',
    ...childrenOf(childOf(each, 'priorVersions'), 'version').map((version) => version.textContent ?? ''),
  ]);
}

/** The newest that both know. */
export function newestCommon(offered: readonly string[]): string {
  const known = offered.map((each) => each.trim()).filter((each) => /^\d+(\.\d+)*$/.test(each));
  const usable = known.filter((each) => compareVersions(each, apiNewest) <= 0).sort(compareVersions);
  return usable.at(-1) ?? apiFallback;
}

function compareVersions(a: string, b: string): number {
  const [left, right] = [a.split('.').map(Number), b.split('.').map(Number)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function readContent(content: Element, where: string): ServiceContent {
  const needed = (name: string): Reference => {
    const found = referenceOf(childOf(content, name));
    if (found === null) throw new VsphereAnswerInvalid(`${where} names no ${name}`);
    return found;
  };
  return {
    about: {
      product: childText(content, 'about', 'fullName') ?? 'unknown product',
      apiVersion: childText(content, 'about', 'apiVersion') ?? 'unknown',
      instanceUuid: childText(content, 'about', 'instanceUuid') || null,
      isVirtualCenter: childText(content, 'about', 'apiType') === 'VirtualCenter',
    },
    rootFolder: needed('rootFolder'),
    propertyCollector: needed('propertyCollector'),
    viewManager: needed('viewManager'),
    sessionManager: needed('sessionManager'),
    searchIndex: needed('searchIndex'),
    authorizationManager: referenceOf(childOf(content, 'authorizationManager')),
    fileManager: referenceOf(childOf(content, 'fileManager')),
  };
}
