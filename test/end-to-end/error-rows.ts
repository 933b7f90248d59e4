/**
 * What can go wrong on the operator's side, and what the agent must then say. error-table.peer.test.ts makes each of
 * these happen; the same rows are the table in docs/operations/errors.md.
 */
export interface ErrorRow {
  readonly situation: string;
  readonly command: string;
  readonly exitCode: number;
  readonly code: string;
  /** A part of the message. */
  readonly says: string;
}

const row = (situation: string, command: string, exitCode: number, code: string, says: string): ErrorRow => ({
  situation,
  command,
  exitCode,
  code,
  says,
});

export const errorRows = {
  misspeltKey: row('A setting is misspelt', 'sync', 2, 'CONFIG_INVALID', 'did you mean `state`?'),
  noConfig: row('There is no configuration', 'sync', 2, 'CONFIG_NOT_FOUND', 'there is no such file'),
  secretNotSet: row('The variable of a secret is empty', 'sync', 2, 'CONFIG_INVALID', 'S3_SECRET is empty'),
  fingerprintMistyped: row('The root fingerprint is mistyped', 'sync', 2, 'CONFIG_INVALID', 'rootFingerprint'),
  machineUnknown: row(
    'No such machine in the configuration',
    'sync web-9',
    2,
    'MACHINE_UNKNOWN',
    'has no machine web-9',
  ),
  seedAgain: row('The machine was seeded already', 'seed', 2, 'WRONG_VERB', 'has recovery points already'),
  neverSeeded: row('The machine was never seeded', 'sync', 2, 'WRONG_VERB', 'has no recovery point yet'),
  pointMalformed: row('No point can be meant', 'restore --point noon', 2, 'POINT_MALFORMED', 'is no point'),
  requestMissing: row('The file of an agent key is missing', 'root certify', 2, 'CONFIG_INVALID', "can't be read"),

  diskMissing: row('The file of a disk is missing', 'sync', 3, 'SOURCE_NOT_FOUND', 'does not exist'),
  diskTruncated: row('A disk is cut off while it is read', 'seed', 3, 'SOURCE_UNREADABLE', 'ended early'),
  diskFails: row('A disk fails while it is read', 'seed', 3, 'SOURCE_UNREADABLE', 'the read failed (EIO)'),
  diskWritten: row('A disk is written while it is read', 'seed', 3, 'SOURCE_CHANGED', 'while it was read'),
  restoreFull: row('No space left for the restore', 'restore', 3, 'OUTPUT_UNUSABLE', 'no space left'),
  restoreIntoFile: row('The folder for the restore is a file', 'restore', 3, 'OUTPUT_UNUSABLE', "can't be written"),

  wrongSecret: row('The secret key is wrong', 'sync', 4, 'ACCESS_DENIED', 'SignatureDoesNotMatch'),
  unknownAccessKey: row('The access key is unknown', 'sync', 4, 'ACCESS_DENIED', 'InvalidAccessKeyId'),
  wrongRegion: row(
    'The region is wrong',
    'sync',
    4,
    'WRONG_REGION',
    'The bucket is in region eu-central-1, not us-west-2',
  ),
  bucketMissing: row('The bucket does not exist', 'sync', 4, 'BUCKET_NOT_FOUND', 'no-such-bucket'),
  endpointAway: row('Nobody listens at the endpoint', 'sync', 4, 'STORE_UNAVAILABLE', 'ECONNREFUSED'),
  tlsUntrusted: row("The store's certificate is not trusted", 'sync', 4, 'TLS_UNTRUSTED', 'name its CA file'),
  caFileMissing: row('The CA file is missing', 'sync', 4, 'TLS_UNTRUSTED', 'cannot be read'),
  clockAhead: row('The clock is an hour ahead', 'sync', 4, 'CLOCK_SKEWED', "This host's clock is wrong"),
  clockBehind: row('The clock is an hour behind', 'sync', 4, 'CLOCK_SKEWED', "This host's clock is wrong"),
  clockTenMinutes: row('The clock is ten minutes ahead', 'sync', 4, 'CLOCK_SKEWED', '10 minutes ahead of'),
  notAtomic: row('The store lets two puts of a name win', 'init', 4, 'STORE_NOT_ATOMIC', 'does not put atomically'),

  kmsDenies: row('The KMS denies the agent the key', 'sync', 5, 'KEY_DENIED', 'AccessDenied'),
  kmsKeyDisabled: row('The KMS key is disabled', 'sync', 5, 'KEY_DISABLED', 'the key is disabled'),
  kmsKeyMissing: row('The KMS key does not exist', 'sync', 5, 'KEY_NOT_FOUND', 'no such key'),
  kmsUnknownUser: row("The KMS does not know the agent's credentials", 'sync', 5, 'KEY_DENIED', 'KMS refused'),
  kmsAway: row('The KMS is away', 'restore', 5, 'KEY_SERVICE_UNAVAILABLE', "can't be reached"),
  keyFileOpen: row('The root key file is readable by others', 'root certify', 5, 'KEY_FILE_UNUSABLE', 'root.key'),

  wrongRoot: row("The root fingerprint is another repository's", 'sync', 6, 'ROOT_MISMATCH', 'root'),
  repositoryMissing: row('There is no repository', 'sync', 6, 'REPOSITORY_NOT_FOUND', 'no repository'),
  repositoryExists: row('There is a repository already', 'init', 6, 'REPOSITORY_EXISTS', 'nothing was changed'),
  replicaUnknown: row('No replica has that name', 'restore web-9', 6, 'REPLICA_NOT_FOUND', 'web-9'),
  pointUnknown: row('There is no such point', 'restore --point 9999', 6, 'REPLICA_NOT_FOUND', '9999'),
  rolledBack: row(
    'A newer head is known than the bucket has',
    'points --expect-head',
    6,
    'REPLICA_ROLLED_BACK',
    'entry',
  ),
  stateBusy: row('Another run works on the machine', 'sync', 6, 'STATE_BUSY', 'another failkit process'),
  stateFull: row('The disk of the state folder is full', 'sync', 6, 'STATE_DISK_FULL', 'is full'),
  stateFullFromStart: row('The same, before the first run', 'seed', 6, 'STATE_DISK_FULL', 'is full'),
  stateIsFile: row('The state folder is a file', 'sync', 6, 'STATE_UNUSABLE', 'state'),

  segmentMissing: row('A segment was deleted', 'restore', 7, 'OBJECT_NOT_FOUND', 'segments/'),
  segmentDamaged: row('A segment was altered', 'restore', 7, 'RECORD_TAMPERED', 'segments/'),

  outputExists: row('The output exists', 'restore', 8, 'OUTPUT_EXISTS', '--force'),
  requestExists: row('The file for the agent key exists', 'root request', 8, 'OUTPUT_EXISTS', 'choose another name'),
  kitExists: row('The folder of the kit exists', 'init', 8, 'KIT_EXISTS', 'a kit never replaces anything'),
} as const satisfies Readonly<Record<string, ErrorRow>>;

export type ErrorRowName = keyof typeof errorRows;
