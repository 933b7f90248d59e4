import * as z from 'zod';
import { path, secret, text, textOrReference, webAddress } from './fields.ts';
import type { References } from './references.ts';
import { azureChain, azureCloud, connection, gcsCredentials, reach, universe } from './repository-schema.ts';

/** Who keeps the key encryption key, one shape for each kind of key service. */

export function keys(references: References) {
  return z.discriminatedUnion('provider', [
    z.strictObject({
      provider: z.literal('local-key'),
      file: path(references).describe(
        'The key file. Mode 0600; without it (and the recovery kit) nothing can be read.',
      ),
    }),
    z.strictObject({
      provider: z.literal('aws-kms'),
      keyId: text(2048).describe('Key id, ARN, or alias/name.'),
      region: text(100),
      endpoint: webAddress().nullable().default(null),
      ...connection(references),
    }),
    azureKeyVault(references),
    gcpKms(references),
    vaultTransit(references),
    pkcs11(references),
    z
      .strictObject({
        provider: z.literal('recovery-key'),
        file: path(references).describe('The private recovery key of the recovery kit (PEM, mode 0600).'),
      })
      .describe('For recovery from the bucket and the kit alone; such a host only reads.'),
  ]);
}

function azureKeyVault(references: References) {
  return z
    .strictObject({
      provider: z.literal('azure-key-vault'),
      keyId: text(500)
        .regex(
          /^https:\/\/[^/]+\/keys\/[0-9A-Za-z-]+(\/[0-9a-f]{32})?$/,
          'must be https://NAME.vault.azure.net/keys/KEY, with or without a version',
        )
        .describe('Identifier of an RSA key: https://NAME.vault.azure.net/keys/KEY[/VERSION]'),
      publicKeyFile: path(references)
        .nullable()
        .default(null)
        .describe('PEM file of the public half of that version: wraps then need no request and no permission.'),
      cloud: azureCloud(),
      endpoint: encryptedAddress().nullable().default(null).describe("When it is not the identifier's own host."),
      ...reach(references),
      credentials: z.discriminatedUnion('from', [azureChain()]).prefault({ from: 'chain' }),
    })
    .refine(({ publicKeyFile, keyId }) => publicKeyFile === null || /[0-9a-f]{32}$/.test(keyId), {
      path: ['keyId'],
      error: 'has to name the version that publicKeyFile is of',
    })
    .describe('Azure Key Vault or Managed HSM.');
}

function gcpKms(references: References) {
  return z
    .strictObject({
      provider: z.literal('gcp-kms'),
      key: text(500)
        .regex(
          /^projects\/[^/]+\/locations\/[^/]+\/keyRings\/[^/]+\/cryptoKeys\/[^/]+$/,
          'must be projects/P/locations/L/keyRings/R/cryptoKeys/K, without a version',
        )
        .describe('Resource name of a symmetric key: projects/P/locations/L/keyRings/R/cryptoKeys/K'),
      universe: universe(),
      endpoint: encryptedAddress().nullable().default(null).describe('When it is not cloudkms.UNIVERSE.'),
      ...reach(references),
      credentials: gcsCredentials(references).prefault({ from: 'chain' }),
    })
    .describe('Google Cloud KMS.');
}

function vaultTransit(references: References) {
  return z
    .strictObject({
      provider: z.literal('vault-transit'),
      address: encryptedAddress().describe('Of HashiCorp Vault or OpenBao: https://vault.example.net:8200'),
      mount: mountPath('transit').describe('Where the transit engine is mounted.'),
      key: text(200).describe('Name of a transit key of an AEAD type, such as aes256-gcm96.'),
      namespace: text(300).nullable().default(null).describe('Of Vault Enterprise, HCP Vault or OpenBao.'),
      ...reach(references),
      credentials: z.discriminatedUnion('from', [
        z.strictObject({ from: z.literal('token'), token: secret(references) }).describe('By reference only.'),
        z
          .strictObject({ from: z.literal('token-file'), file: path(references) })
          .describe('The file in which a Vault agent keeps a valid token; read for each request.'),
        z
          .strictObject({
            from: z.literal('app-role'),
            mount: mountPath('approle'),
            roleId: textOrReference(references),
            secretId: secret(references),
          })
          .describe('The secret id by reference only.'),
      ]),
    })
    .describe('The transit engine of HashiCorp Vault or OpenBao.');
}

function pkcs11(references: References) {
  return z
    .strictObject({
      provider: z.literal('pkcs11'),
      publicKeyFile: path(references).describe('PEM file of the public half of an RSA key on the token.'),
      oaepHash: z
        .enum(['sha256', 'sha1'])
        .default('sha256')
        .describe('For new wraps; sha1 for tokens that open nothing else.'),
      module: path(references)
        .nullable()
        .default(null)
        .describe("The vendor's PKCS#11 library. Empty: this host only wraps."),
      token: text(32).nullable().default(null).describe('Label of the token.'),
      tokenKeyId: text(200)
        .regex(/^([0-9a-f]{2})+$/i, 'must be hex digits: the CKA_ID of the key')
        .nullable()
        .default(null)
        .describe('CKA_ID of the private key.'),
      pin: secret(references).nullable().default(null).describe('By reference only.'),
    })
    .refine(
      ({ module, token, tokenKeyId, pin }) => {
        const given = [module, token, tokenKeyId, pin].filter((value) => value !== null).length;
        return given === 0 || given === 4;
      },
      {
        path: ['module'],
        error: 'goes with token, tokenKeyId and pin: give all four, or none where this host only wraps',
      },
    )
    .describe('A hardware security module, through pkcs11-tool of OpenSC.');
}

/** Data keys go over it: without TLS only within this host. */
function encryptedAddress() {
  return webAddress().refine(
    (value) => value.startsWith('https://') || /^http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:|\/|$)/.test(value),
    'must be an https:// address: keys go over it',
  );
}

function mountPath(usual: string) {
  return text(200)
    .transform((value) => value.replace(/^\/+|\/+$/g, ''))
    .prefault(usual);
}
