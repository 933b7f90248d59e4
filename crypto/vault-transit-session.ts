import { readFile } from 'node:fs/promises';
import { KeyDenied, KeyServiceUnavailable } from './errors.ts';
import { askJson, type JsonConnection, member, textMember } from './json-request.ts';
import { Secret } from './redacted.ts';
import { errorFromVault } from './vault-transit-errors.ts';

/** How Vault knows us. */
export type VaultLogin =
  | { readonly kind: 'token'; readonly token: Secret }
  /** The sink of a Vault agent, which replaces the token in it: read for each request. */
  | { readonly kind: 'token-file'; readonly file: string }
  | { readonly kind: 'app-role'; readonly mount: string; readonly roleId: string; readonly secretId: Secret };

interface VaultPlace {
  readonly address: string;
  readonly namespace: string | null;
  readonly login: VaultLogin;
}

/** A token is used for this share of its lease, so that none ends on the way. */
const leaseShare = 0.7;

/** What each request carries, with a token that is asked for when one is needed. */
export class VaultSession {
  readonly #place: VaultPlace;
  readonly #connection: JsonConnection;
  #token: { readonly token: Secret; readonly endsMs: number } | null = null;

  constructor(place: VaultPlace, connection: JsonConnection) {
    this.#place = place;
    this.#connection = connection;
  }

  /** Whether a token that was refused can be replaced. */
  get canLogIn(): boolean {
    return this.#place.login.kind === 'app-role';
  }

  /** `isFresh`: made for this very request. */
  async headers(
    signal: AbortSignal,
  ): Promise<{ readonly headers: Readonly<Record<string, string>>; readonly isFresh: boolean }> {
    const before = this.#token;
    const token = await this.#current(signal);
    const headers = { ...this.#common(), 'x-vault-token': token.reveal() };
    return { headers, isFresh: before !== this.#token };
  }

  forget(): void {
    this.#token = null;
  }

  async #current(signal: AbortSignal): Promise<Secret> {
    const { login } = this.#place;
    if (login.kind === 'token') return login.token;
    if (login.kind === 'token-file') return await readToken(login.file);
    if (this.#token === null || this.#token.endsMs <= performance.now()) this.#token = await this.#logIn(login, signal);
    return this.#token.token;
  }

  async #logIn(login: Extract<VaultLogin, { kind: 'app-role' }>, signal: AbortSignal) {
    const what = `login as AppRole ${login.roleId}`;
    const url = `${this.#place.address}/v1/auth/${login.mount.split('/').map(encodeURIComponent).join('/')}/login`;
    const body = { role_id: login.roleId, secret_id: login.secretId.reveal() };
    const request = { service: 'Vault', what, method: 'POST' as const, url, headers: this.#common(), body };
    const answer = await askJson(this.#connection, request, signal);
    // Vault answers with 400 to a role or a secret that it does not know.
    if (answer.status === 400)
      throw new KeyDenied(`Vault refused ${what}: check roleId and secretId, and that the secret id has not ended`);
    if (answer.status !== 200) throw errorFromVault(answer, what);
    const auth = member(answer.json, 'auth');
    const token = textMember(auth, 'client_token');
    const seconds = Number(member(auth, 'lease_duration') ?? 0);
    if (token === '') throw new KeyServiceUnavailable(`Vault answered ${what} without a token`);
    // Zero: it never ends.
    const lastsMs = seconds === 0 ? Number.POSITIVE_INFINITY : seconds * 1000 * leaseShare;
    return { token: new Secret(token), endsMs: performance.now() + lastsMs };
  }

  #common(): Readonly<Record<string, string>> {
    const { namespace } = this.#place;
    return { 'x-vault-request': 'true', ...(namespace !== null && { 'x-vault-namespace': namespace }) };
  }
}

async function readToken(file: string): Promise<Secret> {
  try {
    return new Secret((await readFile(file, 'utf8')).trim());
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    throw new KeyDenied(
      `the file of Vault's token, ${file}, can't be read (${code}): see whether the Vault agent runs`,
    );
  }
}
