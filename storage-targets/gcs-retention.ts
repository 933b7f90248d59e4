import { AccessDenied, ChecksumRefused, Immutable, RequestRefused, Unsupported } from './errors.ts';
import type { GcsBucket } from './gcs-bucket.ts';
import { jsonOf } from './gcs-list.ts';
import { field } from './network-errors.ts';

/** Object Retention Lock: cloud.google.com/storage/docs/object-lock */

export const enablingRetention =
  'make a bucket with it (gcloud storage buckets create --enable-per-object-retention), or turn it on for this one in the Google Cloud console';

/** Google's own mode for an object that nobody can unlock, and for one that whoever has the permission can. */
export type RetentionMode = 'Locked' | 'Unlocked';

interface ObjectLock {
  readonly retainUntil: Date | null;
  readonly mode: RetentionMode | null;
}

/** As an upload or a change of metadata has it. */
export function retentionUntil(until: Date, mode: RetentionMode): { readonly retention: object } {
  return { retention: { mode, retainUntilTime: until.toISOString() } };
}

function lockOf(found: unknown): ObjectLock {
  const retention = field(found, 'retention');
  const until = new Date(String(field(retention, 'retainUntilTime')));
  const mode = field(retention, 'mode');
  return {
    retainUntil: Number.isNaN(until.getTime()) ? null : until,
    mode: mode === 'Locked' || mode === 'Unlocked' ? mode : null,
  };
}

/** Before the first lock of this process. Where these credentials may not ask, the answer to the first put tells. */
export async function requireRetention(bucket: GcsBucket, signal: AbortSignal): Promise<void> {
  if (bucket.lockSeen) return;
  const found = await bucketMetadata(bucket, 'objectRetention', signal);
  if (found !== null && !isRetentionEnabled(found))
    throw new Unsupported(`${bucket.place} has no object retention: ${enablingRetention}`);
}

export function isRetentionEnabled(metadata: unknown): boolean {
  return field(field(metadata, 'objectRetention'), 'mode') === 'Enabled';
}

/** Null where these credentials may not read it (`storage.buckets.get`). */
export async function bucketMetadata(bucket: GcsBucket, fields: string, signal: AbortSignal): Promise<unknown> {
  try {
    return await bucket.request('reading its settings', '', signal, async (either) =>
      jsonOf(await bucket.call({ method: 'GET', path: '', query: { fields } }, either)),
    );
  } catch (error) {
    if (error instanceof AccessDenied) return null;
    throw error;
  }
}

/** The store answers with the object as it is now; one that knows nothing of retention leaves it out. */
export function requireLocked(
  bucket: GcsBucket,
  name: string,
  until: Date,
  object: unknown,
  mode: RetentionMode,
): void {
  const lock = lockOf(object);
  if (lock.retainUntil === null || lock.retainUntil < until)
    throw new Unsupported(`${bucket.subject(name)}: the store did not lock it: ${enablingRetention}`);
  if (mode === 'Locked' && lock.mode !== 'Locked')
    throw new Unsupported(`${bucket.subject(name)}: the store locked it in mode ${lock.mode} only`);
  bucket.lockSeen = true;
}

export async function extendRetention(
  bucket: GcsBucket,
  name: string,
  until: Date,
  signal: AbortSignal,
): Promise<void> {
  const before = await lookAtLock(bucket, name, signal);
  if (before.retainUntil !== null && before.retainUntil >= until) return;
  await requireRetention(bucket, signal);
  // An object keeps the mode it has: a locked one cannot be relaxed, and an unlocked one is not tightened behind anyone's back.
  const mode = before.mode ?? bucket.retentionMode;
  try {
    const body = Buffer.from(JSON.stringify(retentionUntil(until, mode)));
    const headers = { 'content-type': 'application/json', 'content-length': String(body.length) };
    const path = bucket.object(name);
    const changed = await bucket.request('extending retention', name, signal, async (either) =>
      jsonOf(
        await bucket.call({ method: 'PATCH', path, query: { fields: 'retention' }, headers, body: [body] }, either),
      ),
    );
    requireLocked(bucket, name, until, changed, mode);
  } catch (error) {
    if (!(error instanceof AccessDenied || error instanceof Immutable)) throw lockRefused(error);
    // To shorten is refused: another host may have lengthened it meanwhile, by more.
    const now = await lookAtLock(bucket, name, signal);
    if (now.retainUntil === null || now.retainUntil < until) throw lockRefused(error);
  }
}

async function lookAtLock(
  bucket: GcsBucket,
  name: string,
  signal: AbortSignal,
  generation?: string,
): Promise<ObjectLock> {
  const query = { fields: 'name,retention', ...(generation !== undefined && { generation }) };
  const found = await bucket.request('looking at its lock', name, signal, async (either) =>
    jsonOf(await bucket.call({ method: 'GET', path: bucket.object(name), query }, either)),
  );
  return lockOf(found);
}

/** The permission to lock is another one than to put, and a bucket without the feature answers with a plain 400, as to damaged bytes. */
export function lockRefused(error: unknown): unknown {
  if (error instanceof AccessDenied)
    return new AccessDenied(
      `${error.message}. To lock objects takes storage.objects.setRetention, and to lock them for longer storage.objects.update`,
      { cause: error },
    );
  const question = 'Has the bucket object retention enabled?';
  if (error instanceof RequestRefused) return new Unsupported(`${error.message}. ${question}`, { cause: error });
  if (error instanceof ChecksumRefused)
    return new ChecksumRefused(`${error.message}. If every put ends like this: ${question}`, { cause: error });
  return error;
}

/** Of a generation that could not be deleted: the object itself tells whether a lock was the reason, and until when. */
export async function lockedUntil(
  bucket: GcsBucket,
  error: unknown,
  name: string,
  generation: string,
  signal: AbortSignal,
): Promise<unknown> {
  if (!(error instanceof Immutable || error instanceof AccessDenied)) return error;
  const found = await lookAtLock(bucket, name, signal, generation).catch(() => null);
  signal.throwIfAborted();
  const until = found?.retainUntil;
  return until
    ? new Immutable(`${bucket.subject(name)} is locked until ${until.toISOString()}`, { cause: error })
    : error;
}
