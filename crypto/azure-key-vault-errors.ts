import {
  KeyClockSkewed,
  KeyDenied,
  KeyDisabled,
  KeyNotFound,
  KeyPendingDeletion,
  KeyRefused,
  KeyServiceThrottled,
  KeyServiceUnavailable,
  KeyWrapMismatch,
} from './errors.ts';
import { clockIsOff, type JsonAnswer, member, saidBy, textMember } from './json-request.ts';

/** Codes of the inner error, where a refusal has one. */
const inner: Readonly<Record<string, typeof KeyRefused>> = {
  KeyDisabled,
  ObjectIsDeletedButRecoverable: KeyPendingDeletion,
  ObjectIsBeingDeleted: KeyPendingDeletion,
};

/** Names an answer of Key Vault: learn.microsoft.com/azure/key-vault/general/rest-error-codes */
export function errorFromKeyVault(
  { status, headers, json }: JsonAnswer,
  operation: 'wrapkey' | 'unwrapkey',
  what: string,
): KeyRefused | KeyServiceUnavailable {
  const error = member(json, 'error');
  const innerCode = textMember(member(error, 'innererror'), 'code');
  const code = innerCode || textMember(error, 'code') || `HTTP ${status}`;
  const said = `Azure Key Vault refused ${what} (${code})${saidBy(textMember(error, 'message'))}`;
  const Named = Object.hasOwn(inner, innerCode) ? inner[innerCode] : undefined;
  if (Named !== undefined) return new Named(`${said}. Enable or recover the key, or restore with the recovery key`);
  if (status === 401 && clockIsOff(headers))
    return new KeyClockSkewed(`${said}. This host's clock is wrong; Azure's says ${headers.date}`);
  if (status === 401 || status === 403)
    return new KeyDenied(
      `${said}. Check the credentials, their role on the key, the vault's firewall, and that the key is enabled and not expired`,
    );
  if (status === 404)
    return new KeyNotFound(
      `${said}. Check keys.keyId; a key that was deleted can be recovered for 7 to 90 days: az keyvault key recover`,
    );
  if (status === 429) return new KeyServiceThrottled(`${said}. It asks for fewer requests`);
  if (status >= 500 || status === 408)
    return new KeyServiceUnavailable(`Azure Key Vault can't do ${what} now (${code})`);
  if (status === 400 && operation === 'unwrapkey')
    return new KeyWrapMismatch(`${said}. The wrap was altered, or made by another key`);
  return new KeyRefused(`${said}. The key has to be an RSA key with the operations wrapKey and unwrapKey`);
}
