import { z } from 'zod';

/** What earlier runs of a machine leave for compaction. */
export interface Credit {
  /** That may be sent again. */
  readonly bytes: number;
  /** Stored of all that was sent again so far. */
  readonly sentBytes: number;
  /** Snapshot time of the newest point; null: none was seen. */
  readonly seenMs: number | null;
  /** Snapshot time of the last point that compaction was due with. */
  readonly doneMs: number | null;
}

export const noCredit: Credit = { bytes: 0, sentBytes: 0, seenMs: null, doneMs: null };

export const credit = z.object({
  bytes: z.number().nonnegative(),
  sentBytes: z.number().nonnegative(),
  seenMs: z.number().nullable(),
  doneMs: z.number().nullable(),
});
