import type { KeysConfig } from './config/config-schema.ts';

/** How people are told who keeps the key encryption key. */
export function keyPlaceOf(keys: KeysConfig): string {
  switch (keys.provider) {
    case 'local-key':
    case 'recovery-key':
      return keys.file;
    case 'aws-kms':
    case 'azure-key-vault':
      return keys.keyId;
    case 'gcp-kms':
      return keys.key;
    case 'pkcs11':
      return keys.token === null ? keys.publicKeyFile : `token ${keys.token}`;
    case 'vault-transit':
      return `${keys.mount}/${keys.key} at ${keys.address}`;
  }
}
