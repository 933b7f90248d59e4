/** What a bucket or container does to objects by itself, as far as it matters to object lock, which each cloud calls by another name. */
export interface BucketLock {
  readonly feature: 'object lock' | 'version-level immutability' | 'object retention';
  /** Null where these credentials may not ask. */
  readonly enabled: boolean | null;
  /** How its owner turns it on. */
  readonly enabling: string;
  /** Locks objects that ask for none, our pins among them. */
  readonly hasDefaultRetention: boolean;
  /** Archives, from which nothing is read for hours, that objects are in or will be moved to; null where nobody here can tell. */
  readonly archives: readonly string[] | null;
  /** Rules delete, or hide behind a marker, what is old. */
  readonly deletesOld: boolean;
}
