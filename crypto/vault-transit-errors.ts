import {
  KeyDenied,
  KeyNotFound,
  KeyRefused,
  KeyServiceThrottled,
  KeyServiceUnavailable,
  KeyWrapMismatch,
} from './errors.ts';
import { type JsonAnswer, member, saidBy } from './json-request.ts';

/**
 * Names what Vault answered, by its status alone: it gives refusals no codes, only texts, and those are shown but never matched
 * (developer.hashicorp.com/vault/api-docs#http-status-codes).
 */
export function errorFromVault(answer: JsonAnswer, what: string): KeyRefused | KeyServiceUnavailable {
  const { status, json } = answer;
  const errors = member(json, 'errors');
  const text = Array.isArray(errors) ? errors.filter((each) => typeof each === 'string').join('; ') : '';
  const said = `(HTTP ${status})${saidBy(text)}`;
  if (status === 403)
    return new KeyDenied(
      `Vault refused ${what} ${said}. Check that the token has not ended, and that its policy allows update on this path`,
    );
  if (status === 404) return new KeyNotFound(`Vault knows no ${what} ${said}. Check mount, key and namespace`);
  if (status === 400)
    return what.startsWith('decrypt')
      ? new KeyWrapMismatch(
          `Vault refused ${what} ${said}. The wrap was altered or made by another key or for another machine, or the key's min_decryption_version is above its version`,
        )
      : new KeyRefused(
          `Vault refused ${what} ${said}. Check that the key exists, and that it is of an AEAD type such as aes256-gcm96`,
        );
  if (status === 429) return new KeyServiceThrottled(`Vault asks for fewer requests, at ${what} ${said}`);
  if (status === 503)
    return new KeyServiceUnavailable(
      `Vault can't do ${what} now ${said}. It is sealed or starting: see who unseals it`,
    );
  if (status >= 300 && status < 400)
    return new KeyRefused(
      `Vault sends ${what} elsewhere ${said}: give the address of the active server or of a load balancer`,
    );
  if (status >= 500 || status === 408) return new KeyServiceUnavailable(`Vault can't do ${what} now ${said}`);
  return new KeyRefused(`Vault refused ${what} ${said}`);
}
