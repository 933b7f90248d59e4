import type { BucketLock } from '../storage-targets/bucket-lock.ts';
import { openFilesystemTarget } from '../storage-targets/filesystem.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import type {
  AwsCredentialsConfig,
  AzureRepositoryConfig,
  GcsRepositoryConfig,
  RepositoryConfig,
  S3RepositoryConfig,
} from './config/config-schema.ts';

type S3Options = Parameters<typeof import('../storage-targets/s3.ts')['openS3Target']>[0];
type S3Credentials = NonNullable<S3Options['credentials']>;
type AzureOptions = Parameters<typeof import('../storage-targets/azure-blob.ts')['openAzureTarget']>[0];
type GcsOptions = Parameters<typeof import('../storage-targets/gcs.ts')['openGcsTarget']>[0];

/** `socketsMax`: requests that can be under way at once. A cloud's SDK is loaded only where that cloud is configured. */
export async function openStore(repository: RepositoryConfig, socketsMax: number): Promise<StorageTarget> {
  switch (repository.target) {
    case 'filesystem':
      return await openFilesystemTarget({ directory: repository.directory });
    case 's3': {
      const { openS3Target } = await import('../storage-targets/s3.ts');
      return await openS3Target({ ...s3Options(repository), socketsMax });
    }
    case 'azure-blob': {
      const { openAzureTarget } = await import('../storage-targets/azure-blob.ts');
      return await openAzureTarget({ ...azureOptions(repository), socketsMax });
    }
    case 'gcs': {
      const { openGcsTarget } = await import('../storage-targets/gcs.ts');
      return await openGcsTarget({ ...gcsOptions(repository), socketsMax });
    }
  }
}

/** How any of them is reached. */
function reachOptions({ endpoint, caFile, proxy }: Pick<S3RepositoryConfig, 'endpoint' | 'caFile' | 'proxy'>) {
  return {
    ...(endpoint === null ? {} : { endpoint }),
    ...(caFile === null ? {} : { caFile }),
    ...(proxy === null ? {} : { proxy: proxy.reveal() }),
  };
}

/** What the bucket does to objects by itself. */
export async function examineLock(
  repository: S3RepositoryConfig | AzureRepositoryConfig | GcsRepositoryConfig,
  signal: AbortSignal,
): Promise<BucketLock> {
  switch (repository.target) {
    case 's3': {
      const { examineBucketLock } = await import('../storage-targets/s3-examine.ts');
      return await examineBucketLock(s3Options(repository), signal);
    }
    case 'azure-blob': {
      const { examineContainerLock } = await import('../storage-targets/azure-blob-examine.ts');
      return await examineContainerLock(azureOptions(repository), signal);
    }
    case 'gcs': {
      const { examineBucketRetention } = await import('../storage-targets/gcs-examine.ts');
      return await examineBucketRetention(gcsOptions(repository), signal);
    }
  }
}

function s3Options(s3: S3RepositoryConfig): S3Options {
  return {
    bucket: s3.bucket,
    prefix: s3.prefix,
    region: s3.region,
    pathStyle: s3.pathStyle,
    ...(s3.immutability && { objectLockMode: s3.immutability.mode === 'compliance' ? 'COMPLIANCE' : 'GOVERNANCE' }),
    ...reachOptions(s3),
    ...s3Credentials(s3.credentials),
  };
}

function s3Credentials(from: AwsCredentialsConfig): Pick<S3Options, 'credentials' | 'assumeRole'> {
  switch (from.from) {
    case 'chain':
      return {};
    case 'profile':
      return { credentials: { kind: 'profile', profile: from.profile } };
    case 'access-key': {
      const { accessKeyId, secretAccessKey, sessionToken } = from;
      const credentials: S3Credentials = {
        kind: 'static',
        accessKeyId,
        secretAccessKey,
        ...(sessionToken && { sessionToken }),
      };
      return { credentials };
    }
    case 'assume-role': {
      const { roleArn, externalId, profile } = from;
      return {
        ...(profile && { credentials: { kind: 'profile' as const, profile } }),
        assumeRole: { roleArn, ...(externalId && { externalId }) },
      };
    }
  }
}

function azureOptions(azure: AzureRepositoryConfig): AzureOptions {
  const { account, container, prefix, cloud, immutability } = azure;
  return {
    account,
    container,
    prefix,
    cloud,
    ...(immutability && { policyMode: immutability.mode === 'compliance' ? 'Locked' : 'Unlocked' }),
    ...reachOptions(azure),
    ...azureCredentials(azure.credentials),
  };
}

function azureCredentials(from: AzureRepositoryConfig['credentials']): Pick<AzureOptions, 'credentials'> {
  switch (from.from) {
    case 'chain':
      return from.clientId === null ? {} : { credentials: { kind: 'identity', clientId: from.clientId } };
    case 'connection-string':
      return { credentials: { kind: 'connection-string', connectionString: from.connectionString } };
    case 'account-key':
      return { credentials: { kind: 'account-key', accountKey: from.accountKey } };
    case 'sas':
      return { credentials: { kind: 'sas', token: from.sasToken } };
  }
}

function gcsOptions(gcs: GcsRepositoryConfig): GcsOptions {
  const { bucket, prefix, universe, credentials, immutability } = gcs;
  return {
    bucket,
    prefix,
    universe,
    ...(immutability && { retentionMode: immutability.mode === 'compliance' ? 'Locked' : 'Unlocked' }),
    ...reachOptions(gcs),
    ...(credentials.from === 'service-account' && { credentials: { kind: 'service-account', key: credentials.key } }),
  };
}
