import * as z from 'zod';
import { path, proxyAddress, secret, text, textOrReference, webAddress } from './fields.ts';
import type { References } from './references.ts';

/** Where the replicas are kept, one shape for each kind of store, and how a cloud is reached. */

export function repository(references: References) {
  return z.discriminatedUnion('target', [
    z.strictObject({ target: z.literal('filesystem'), directory: path(references) }),
    s3Repository(references),
    azureRepository(references),
    gcsRepository(references),
  ]);
}

/** What is locked by mistake is paid for until then. */
const immutableDaysMax = 3_650;

function s3Repository(references: References) {
  return z
    .strictObject({
      target: z.literal('s3'),
      bucket: text(63).regex(/^[a-z0-9][a-z0-9.-]+[a-z0-9]$/, 'must be a bucket name: a-z, 0-9, dots and hyphens'),
      prefix: prefix(),
      region: text(100).describe('The region of the bucket. Servers without regions take us-east-1.'),
      endpoint: webAddress().nullable().default(null).describe("The server's address when it is not AWS."),
      pathStyle: z
        .boolean()
        .nullable()
        .default(null)
        .describe('The bucket in the path instead of the host name. Unless given: with an endpoint yes, else no.'),
      immutability: immutability('object lock', 's3:BypassGovernanceRetention'),
      ...connection(references),
    })
    .transform((s3) => ({ ...s3, pathStyle: s3.pathStyle ?? s3.endpoint !== null }));
}

/** `unlocking`: who may unlock in governance mode. */
function immutability(feature: string, unlocking: string) {
  return z
    .strictObject({
      days: z.int().min(1).max(immutableDaysMax).describe('So long after it was published nobody can delete a point.'),
      mode: z
        .enum(['compliance', 'governance'])
        .describe(`compliance: not even the account itself. governance: whoever has ${unlocking}.`),
    })
    .nullable()
    .default(null)
    .describe(
      `Locks every object, where ${feature} is enabled. Space comes back later by as much, and ten days or more.`,
    );
}

function azureRepository(references: References) {
  return z.strictObject({
    target: z.literal('azure-blob'),
    account: text(24).regex(/^[a-z0-9]{3,24}$/, 'must be the name of a storage account: a-z and 0-9'),
    container: text(63).regex(/^[a-z0-9](-?[a-z0-9])+$/, 'must be the name of a container: a-z, 0-9 and hyphens'),
    prefix: prefix(),
    cloud: azureCloud(),
    endpoint: webAddress()
      .nullable()
      .default(null)
      .describe("The blob service's address when it is not https://ACCOUNT.blob.core.windows.net or its like."),
    immutability: immutability('version-level immutability', 'immutableStorage/runAsSuperUser/action, or i of a SAS'),
    ...reach(references),
    credentials: azureCredentials(references).prefault({ from: 'chain' }),
  });
}

export function azureCloud() {
  return z
    .enum(['public', 'us-government', 'china'])
    .default('public')
    .describe("Decides the account's host name and who gives out tokens.");
}

export function azureChain() {
  return z
    .strictObject({
      from: z.literal('chain'),
      clientId: text(100).nullable().default(null).describe('Of a user-assigned identity, where a host has several.'),
    })
    .describe("The SDK's own search: environment, workload identity, managed identity, az login.");
}

function azureCredentials(references: References) {
  return z.discriminatedUnion('from', [
    azureChain(),
    z
      .strictObject({ from: z.literal('connection-string'), connectionString: secret(references) })
      .describe('As the portal shows it. By reference only.'),
    z
      .strictObject({ from: z.literal('account-key'), accountKey: secret(references) })
      .describe('A key of the storage account: it may do everything there. By reference only.'),
    z
      .strictObject({ from: z.literal('sas'), sasToken: secret(references) })
      .describe('A shared access signature for the container. By reference only.'),
  ]);
}

function gcsRepository(references: References) {
  return z.strictObject({
    target: z.literal('gcs'),
    bucket: text(222).regex(/^[a-z0-9][a-z0-9._-]+[a-z0-9]$/, 'must be a bucket name: a-z, 0-9, dots, _ and hyphens'),
    prefix: prefix(),
    universe: universe(),
    endpoint: webAddress()
      .nullable()
      .default(null)
      .describe("The server's address when it is not storage.UNIVERSE, as for Private Service Connect."),
    immutability: immutability('object retention', 'storage.objects.overrideUnlockedRetention'),
    ...reach(references),
    credentials: gcsCredentials(references).prefault({ from: 'chain' }),
  });
}

export function universe() {
  return text(200)
    .regex(/^[a-z0-9-]+(\.[a-z0-9-]+)+$/, 'must be a domain')
    .default('googleapis.com')
    .describe('Domain of the cloud; sovereign ones have their own.');
}

export function gcsCredentials(references: References) {
  return z.discriminatedUnion('from', [
    z
      .strictObject({ from: z.literal('chain') })
      .describe('Application Default Credentials: GOOGLE_APPLICATION_CREDENTIALS, gcloud, workload identity.'),
    z
      .strictObject({ from: z.literal('service-account'), key: secret(references) })
      .describe("A service account's key file (JSON). By reference only."),
  ]);
}

/** `a/b`, without slashes around it, or empty. */
function prefix() {
  return z
    .string()
    .max(200)
    .regex(/^[A-Za-z0-9/._-]*$/, 'may hold A-Z a-z 0-9 . _ - and slashes only')
    .transform((value) => value.replace(/^\/+|\/+$/g, ''))
    .refine((value) => value === '' || value.split('/').every(isPlainPart), 'must not hold //, /./ or /../')
    .prefault('')
    .describe('All objects are kept below this prefix.');
}

function isPlainPart(part: string): boolean {
  return part !== '' && part !== '.' && part !== '..';
}

/** How an AWS service is reached; the same for the bucket and the KMS. */
export function connection(references: References) {
  return {
    ...reach(references),
    credentials: awsCredentials(references).prefault({ from: 'chain' }),
  };
}

/** How any of them is reached. */
export function reach(references: References) {
  return {
    caFile: path(references).nullable().default(null).describe('PEM file of a private certificate authority.'),
    proxy: proxyAddress(references).nullable().default(null).describe('Address of an HTTP proxy.'),
  };
}

function awsCredentials(references: References) {
  return z.discriminatedUnion('from', [
    z
      .strictObject({ from: z.literal('chain') })
      .describe("The SDK's own search: environment, web identity, container, instance role."),
    z.strictObject({ from: z.literal('profile'), profile: text(200) }).describe('A profile of ~/.aws.'),
    z
      .strictObject({
        from: z.literal('access-key'),
        accessKeyId: textOrReference(references),
        secretAccessKey: secret(references),
        sessionToken: secret(references).nullable().default(null),
      })
      .describe('Secrets by reference only.'),
    z
      .strictObject({
        from: z.literal('assume-role'),
        roleArn: text(2048),
        externalId: textOrReference(references).nullable().default(null),
        profile: text(200).nullable().default(null),
      })
      .describe("A role, assumed with the credentials of the profile or else of the SDK's own search."),
  ]);
}
