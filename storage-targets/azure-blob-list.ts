import { type AzureContainer, incompleteAnswer } from './azure-blob-container.ts';
import { type ListPage, listPages, type PageRequest } from './list-pages.ts';
import type { ListedObject, ListOptions } from './storage-target.ts';

const listedPerRequestMax = 1_000;

export function listBlobs(
  container: AzureContainer,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  return listPages(container.place, options, (request) => listPage(container, prefix, request, signal));
}

async function listPage(
  container: AzureContainer,
  prefix: string,
  { startAfter, limit, token }: PageRequest,
  signal: AbortSignal,
): Promise<ListPage> {
  // Nothing that begins with the prefix comes after such a name.
  if (startAfter > prefix && !startAfter.startsWith(prefix)) return { objects: [], nextToken: undefined };
  const startsInside = startAfter.startsWith(prefix) && startAfter !== '';
  const page = await container.request('listing', prefix, signal, (abortSignal) =>
    firstPage(container, abortSignal, {
      prefix: container.prefix + prefix,
      // The store begins with that very name, which is one too many.
      maxPageSize: Math.min(startsInside ? limit + 1 : limit, listedPerRequestMax),
      ...(token !== undefined && { continuationToken: token }),
      ...(startsInside && { startFrom: container.prefix + startAfter }),
    }),
  );
  const objects = page.segment.blobItems.map(({ name, properties }) => {
    const { contentLength: bytes, lastModified: modified } = properties;
    if (bytes === undefined) throw incompleteAnswer(container, prefix);
    return { name: name.slice(container.prefix.length), bytes, modified };
  });
  return { objects, nextToken: page.continuationToken || undefined };
}

export interface PageOptions {
  readonly prefix: string;
  readonly maxPageSize: number;
  readonly continuationToken?: string;
  readonly startFrom?: string;
  readonly includeVersions?: boolean;
  readonly includeSnapshots?: boolean;
}

export async function firstPage(container: AzureContainer, abortSignal: AbortSignal, options: PageOptions) {
  const { maxPageSize, continuationToken, ...which } = options;
  const pages = container.client
    .listBlobsFlat({ ...which, abortSignal })
    .byPage({ maxPageSize, ...(continuationToken !== undefined && { continuationToken }) });
  const { value, done } = await pages.next();
  if (done) throw new Error('the SDK ends a listing before its first page');
  return value;
}
