import { ObjectNotFound } from './errors.ts';
import type { GcsBucket } from './gcs-bucket.ts';
import { itemsOf, jsonOf } from './gcs-list.ts';
import { lockedUntil } from './gcs-retention.ts';
import { field } from './network-errors.ts';

const generationsPerRequestMax = 1_000;
const deletedAtOnceMax = 8;

/**
 * With object versioning, deleting a name leaves what it was as a noncurrent generation, still paid for. So every
 * generation is removed by its number. All names are tried before the first failure is thrown. What soft delete keeps for
 * a while can't be removed by anybody.
 */
export async function deleteEveryGeneration(
  bucket: GcsBucket,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const objects = names.map((name) => ({ name, path: bucket.object(name) }));
  const failures: unknown[] = [];
  for (let first = 0; first < objects.length; first += deletedAtOnceMax) {
    const group = objects.slice(first, first + deletedAtOnceMax);
    const outcomes = await Promise.allSettled(group.map(({ name, path }) => deleteObject(bucket, name, path, signal)));
    signal.throwIfAborted();
    for (const outcome of outcomes) if (outcome.status === 'rejected') failures.push(outcome.reason);
  }
  if (failures.length > 0) throw failures[0];
}

async function deleteObject(bucket: GcsBucket, name: string, path: string, signal: AbortSignal): Promise<void> {
  for (const generation of await generationsOf(bucket, name, signal)) {
    try {
      await bucket.request('deleting', name, signal, async (either) => {
        const { body } = await bucket.call({ method: 'DELETE', path, query: { generation } }, either);
        body.resume();
      });
    } catch (error) {
      if (!(error instanceof ObjectNotFound)) throw await lockedUntil(bucket, error, name, generation, signal);
    }
  }
}

/** The name is the first of all that begin with it, so the listing stops at the first other one. */
async function generationsOf(bucket: GcsBucket, name: string, signal: AbortSignal): Promise<string[]> {
  const key = bucket.prefix + name;
  const found: string[] = [];
  let token = '';
  for (;;) {
    const query = {
      prefix: key,
      versions: 'true',
      maxResults: String(generationsPerRequestMax),
      fields: 'items(name,generation),nextPageToken',
      ...(token !== '' && { pageToken: token }),
    };
    const page = await bucket.request('listing generations', name, signal, async (either) =>
      jsonOf(await bucket.call({ method: 'GET', path: '/o', query }, either)),
    );
    const items = itemsOf(page);
    const ours = items.filter((item) => field(item, 'name') === key);
    for (const item of ours) found.push(String(field(item, 'generation')));
    const next = field(page, 'nextPageToken');
    // A store that repeats its token would keep us here for ever.
    if (ours.length < items.length || typeof next !== 'string' || next === '' || next === token) return found;
    token = next;
  }
}
