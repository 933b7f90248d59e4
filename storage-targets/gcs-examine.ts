import type { BucketLock } from './bucket-lock.ts';
import { GcsBucket, type GcsOptions } from './gcs-bucket.ts';
import { bucketMetadata, enablingRetention, isRetentionEnabled } from './gcs-retention.ts';
import { httpAgents } from './http-agents.ts';
import { field } from './network-errors.ts';

export async function examineBucketRetention(options: GcsOptions, signal: AbortSignal): Promise<BucketLock> {
  const bucket = new GcsBucket(options, await httpAgents(options));
  try {
    const wanted = 'objectRetention,retentionPolicy,defaultEventBasedHold,lifecycle';
    const found = await bucketMetadata(bucket, wanted, signal);
    return {
      feature: 'object retention',
      enabled: found === null ? null : isRetentionEnabled(found),
      enabling: enablingRetention,
      hasDefaultRetention:
        field(found, 'retentionPolicy') !== undefined || field(found, 'defaultEventBasedHold') === true,
      // Whatever its class, an object of Google's is read at once.
      archives: [],
      deletesOld: rulesOf(found).some(deletesLiveObjects),
    };
  } finally {
    bucket.close();
  }
}

function rulesOf(metadata: unknown): readonly unknown[] {
  const rules = field(field(metadata, 'lifecycle'), 'rule');
  return Array.isArray(rules) ? rules : [];
}

function deletesLiveObjects(rule: unknown): boolean {
  return field(field(rule, 'action'), 'type') === 'Delete' && field(field(rule, 'condition'), 'isLive') !== false;
}
