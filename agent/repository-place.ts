import type { RepositoryConfig } from './config/config-schema.ts';

/** Where a repository is, for people: a directory, `s3://bucket/prefix`, `azure://account/container/prefix`, `gs://bucket/prefix`. */
export function placeOf(repository: RepositoryConfig): string {
  switch (repository.target) {
    case 'filesystem':
      return repository.directory;
    case 's3':
      return joined('s3:/', repository.bucket, repository.prefix);
    case 'azure-blob':
      return joined('azure:/', repository.account, repository.container, repository.prefix);
    case 'gcs':
      return joined('gs:/', repository.bucket, repository.prefix);
  }
}

/** What of a repository's configuration another host needs to find it; no credentials, nothing of this site's network. */
export function findableSettings(repository: RepositoryConfig): Readonly<Record<string, unknown>> {
  const { target } = repository;
  switch (repository.target) {
    case 'filesystem':
      return { target, directory: repository.directory };
    case 's3': {
      const { bucket, prefix, region, endpoint, pathStyle } = repository;
      return { target, bucket, prefix, region, ...(endpoint === null ? {} : { endpoint, pathStyle }) };
    }
    case 'azure-blob': {
      const { account, container, prefix, cloud, endpoint } = repository;
      return { target, account, container, prefix, cloud, ...(endpoint === null ? {} : { endpoint }) };
    }
    case 'gcs': {
      const { bucket, prefix, universe, endpoint } = repository;
      return { target, bucket, prefix, universe, ...(endpoint === null ? {} : { endpoint }) };
    }
  }
}

function joined(...parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join('/');
}
