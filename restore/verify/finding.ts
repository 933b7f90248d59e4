import type { SegmentId } from '../../replica/names.ts';

/** What verifying found out. */

/** The levels, weakest first; each says what it proves, and claims no more. */
export const proofOf = {
  present: 'every object that these points need is there and has its length; the bytes of segments were not looked at',
  checksum:
    'the store recorded the right checksum when each segment was put: this proves what was put, not what is there now',
  ciphertext: 'every byte of every segment that these points need is the one that was published; nothing was opened',
  full: 'every page, block and attachment of these points opens and is what the chain vouches for; stored bytes that no point uses were not looked at',
} as const;
export type VerifyLevel = keyof typeof proofOf;

/** One object that is wrong, or that could not be looked at. */
export interface Finding {
  /** Its name in the store. */
  readonly object: string;
  readonly code: string;
  /** In words for the operator; of several records of one segment, the first one's. */
  readonly what: string;
  /** `damaged`: it is not what it should be. `unchecked`: the store or the key service did not let us look. */
  readonly kind: 'damaged' | 'unchecked';
  /** Recovery points that it hurts, ascending. */
  readonly points: readonly number[];
  /** True: it hurts exactly these. False: these may use it, a level that opens nothing can't tell. */
  readonly certain: boolean;
}

export interface VerifyCounts {
  /** Entries of the chain: those of the points, or all of them where the whole chain was walked. */
  entries: number;
  keyRecords: number;
  /** Segments that the points need. */
  segments: number;
  /** Segments for which the store keeps no checksum, so that level `checksum` proves nothing for them. */
  unprovable: number;
  pages: number;
  records: number;
  blocks: number;
  attachments: number;
}

export interface VerifyReport {
  readonly level: VerifyLevel;
  /** What this level proves where it found nothing. */
  readonly proves: string;
  /** The whole chain was walked from its first entry, and every summary compared. */
  readonly chainWalked: boolean;
  readonly counts: Readonly<VerifyCounts>;
  readonly readBytes: number;
  readonly requests: number;
  readonly findings: readonly Finding[];
  /** Points without any finding, as far as this level can tell. Ascending, as are the others. */
  readonly whole: readonly number[];
  /** Points that are hurt for certain. */
  readonly hurt: readonly number[];
  /** Points that may be hurt, or that could not be looked at as a whole. */
  readonly doubtful: readonly number[];
  /** Damaged segments that the newest point uses or may use: what the next sync can send again. Ascending. */
  readonly repairable: readonly SegmentId[];
}
