import { VimTransport } from './vim25/vim-transport.ts';
import { VsphereAnswerInvalid, VsphereDenied, VsphereLoginRefused, VsphereUnreachable } from './vsphere-errors.ts';
import type { VsphereServer } from './vsphere-machine.ts';

/**
 * vCenter's tags, which are no part of vim25: they are in its automation API, with a login of its own, and a single ESXi host has none.
 * https://developer.broadcom.com/xapis/vsphere-automation-api/latest/cis/tagging/
 */

/** Of each machine that has some: its tags, as `category/name`. By the machine's managed object reference. */
export type TagsByMachine = ReadonlyMap<string, readonly string[]>;

const timeoutMs = 60_000;
const tagsPerRequest = 100;
const sessionPath = '/rest/com/vmware/cis/session';
const tagging = '/rest/com/vmware/cis/tagging';

/** Throws VsphereLoginRefused, VsphereDenied, and what VimTransport throws. */
export async function readTags(server: VsphereServer, signal: AbortSignal): Promise<TagsByMachine> {
  using transport = new VimTransport(server);
  const rest = new RestSession(transport, server);
  await rest.logIn(signal);
  try {
    const found = new Map<string, string[]>();
    const categories = new Map<string, string>();
    const ids = texts(await rest.ask(`${tagging}/tag`, null, signal));
    for (let i = 0; i < ids.length; i += tagsPerRequest)
      for (const { tagId, machines } of await rest.attached(ids.slice(i, i + tagsPerRequest), signal)) {
        if (machines.length === 0) continue;
        const tag = await rest.named('tag', tagId, signal);
        const category = categories.get(tag.categoryId) ?? (await rest.named('category', tag.categoryId, signal)).name;
        categories.set(tag.categoryId, category);
        for (const machine of machines)
          found.set(machine, [...(found.get(machine) ?? []), `${category}/${tag.name}`].sort());
      }
    return found;
  } finally {
    await rest.logOut();
  }
}

class RestSession {
  readonly #transport: VimTransport;
  readonly #server: VsphereServer;
  #id = '';

  constructor(transport: VimTransport, server: VsphereServer) {
    this.#transport = transport;
    this.#server = server;
  }

  async logIn(signal: AbortSignal): Promise<void> {
    const { user, password } = this.#server;
    const authorization = `Basic ${Buffer.from(`${user}:${password.reveal()}`).toString('base64')}`;
    const asked = { path: sessionPath, body: '', headers: { authorization }, timeoutMs, answers: 'json' } as const;
    const { status, text } = await this.#transport.send(asked, signal);
    const { where } = this.#transport;
    if (status === 401)
      throw new VsphereLoginRefused(`${where} does not let ${user} in: user or password are wrong, or it is locked`);
    this.#id = String(this.#valueIn(text, status, sessionPath));
  }

  /** A server that can't be asked any more forgets it by itself. */
  async logOut(): Promise<void> {
    const asked = {
      path: sessionPath,
      body: null,
      method: 'DELETE',
      headers: this.#headers,
      timeoutMs,
      answers: 'json',
    } as const;
    await this.#transport.send(asked, AbortSignal.timeout(timeoutMs)).catch(() => undefined);
  }

  async ask(path: string, body: object | null, signal: AbortSignal): Promise<unknown> {
    const asked = {
      path,
      body: body === null ? null : JSON.stringify(body),
      headers: this.#headers,
      timeoutMs,
      answers: 'json',
    } as const;
    const { status, text } = await this.#transport.send(asked, signal);
    return this.#valueIn(text, status, path);
  }

  async attached(tagIds: readonly string[], signal: AbortSignal) {
    const path = `${tagging}/tag-association?~action=list-attached-objects-on-tags`;
    const answers = list(await this.ask(path, { tag_ids: tagIds }, signal));
    return answers.map((each) => ({
      tagId: text(each, 'tag_id'),
      machines: list(field(each, 'object_ids')).flatMap((object) =>
        field(object, 'type') === 'VirtualMachine' ? [text(object, 'id')] : [],
      ),
    }));
  }

  async named(kind: 'tag' | 'category', id: string, signal: AbortSignal) {
    const found = await this.ask(`${tagging}/${kind}/id:${encodeURIComponent(id)}`, null, signal);
    return { name: text(found, 'name'), categoryId: kind === 'tag' ? text(found, 'category_id') : '' };
  }

  get #headers() {
    return { 'content-type': 'application/json', 'vmware-api-session-id': this.#id };
  }

  #valueIn(answer: string, status: number, path: string): unknown {
    const { where } = this.#transport;
    if (status === 401 || status === 403) throw new VsphereDenied(`${where} does not show its tags to this account`);
    if (status !== 200) throw new VsphereUnreachable(`${where} answered ${path} with status ${status}`);
    try {
      return field(JSON.parse(answer), 'value');
    } catch (cause) {
      throw new VsphereAnswerInvalid(`${where} answered ${path} with something that is no JSON`, { cause });
    }
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (Object.entries(value).find(([key]) => key === name)?.[1] ?? null)
    : null;
}

function text(value: unknown, name: string): string {
  const found = field(value, name);
  if (typeof found === 'string') return found;
  throw new VsphereAnswerInvalid(`vSphere's answer about tags has no ${name}`);
}

/** An empty list may be no list at all. */
function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function texts(value: unknown): readonly string[] {
  return list(value).filter((each) => typeof each === 'string');
}
