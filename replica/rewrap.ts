import type { DataKey } from '../crypto/data-key.ts';
import type { WrappedKey } from '../crypto/key-provider.ts';
import type { SigningKey } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import { encodeKeyRecord, type KeyRecord, type MachineKeys, parseKeyRecord } from './key-record.ts';
import { keyRecordName } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { Fenced, putOrCompare } from './put-once.ts';
import { nextRevision } from './read-key-records.ts';

/** A further revision of an epoch's key record: the same data key, wrapped by others. No data moves (docs/format.md §5). */

const racesMax = 8;

export interface OpenedRecord {
  readonly record: KeyRecord;
  readonly key: DataKey;
  readonly machineKeys: MachineKeys;
}

/**
 * Puts the revision with these wraps, and reads it back. It keeps the time of the record before it, so that the epoch ends when it
 * would have. An epoch that somebody rewraps at the same time gets both revisions.
 */
export async function putRevision(
  repo: OpenRepository,
  { record, key, machineKeys }: OpenedRecord,
  wraps: readonly WrappedKey[],
  agent: SigningKey,
  signal: AbortSignal,
): Promise<KeyRecord> {
  const { context, createdMs } = record;
  for (let race = 0; race < racesMax; race++) {
    const revision = await nextRevision(repo, context, signal);
    const bytes = encodeKeyRecord({ context, revision, createdMs, wraps }, key, machineKeys, agent);
    const name = keyRecordName(context.machineId, context.epoch, revision);
    if (await putOrCompare(repo.target, name, bytes, sha256(bytes), signal))
      return parseKeyRecord(context, revision, await repo.target.get(name, null, signal));
  }
  throw new Fenced(
    `${racesMax} revisions of a key record in a row were taken by others: let one host rewrap at a time`,
  );
}
