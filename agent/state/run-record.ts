import { z } from 'zod';

/** How a machine's runs on this host began and ended. */

export interface BegunRun {
  readonly verb: string;
  /** Milliseconds since 1970. */
  readonly startedMs: number;
}

export type RunEnd =
  | { readonly how: 'published'; readonly point: number; readonly alarms: readonly string[] }
  | { readonly how: 'failed'; readonly code: string; readonly message: string }
  | { readonly how: 'interrupted' }
  | { readonly how: 'killed' };

export interface EndedRun extends BegunRun {
  /** Null where nobody was left to say when. */
  readonly endedMs: number | null;
  readonly end: RunEnd;
}

export interface RunRecord {
  /** One that has not said how it ended: it is under way, or was killed. */
  readonly begun: BegunRun | null;
  readonly last: EndedRun | null;
}

export const noRuns: RunRecord = { begun: null, last: null };

/** An error that lists thousands of things is not kept whole. */
const messageCharactersMax = 2_000;

const begunRun = z.object({ verb: z.string(), startedMs: z.number() });
const runEnd = z.discriminatedUnion('how', [
  z.object({ how: z.literal('published'), point: z.number(), alarms: z.array(z.string()).default([]) }),
  z.object({ how: z.literal('failed'), code: z.string(), message: z.string() }),
  z.object({ how: z.literal('interrupted') }),
  z.object({ how: z.literal('killed') }),
]);
export const endedRun = begunRun.extend({ endedMs: z.number().nullable(), end: runEnd });
const runRecord = z.object({ begun: begunRun.nullable(), last: endedRun.nullable() });

export function encodeRunRecord(record: RunRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

/** A record that can't be read tells nothing; it is not worth a failing command. */
export function parseRunRecord(bytes: Uint8Array | null): RunRecord {
  if (bytes === null) return noRuns;
  return runRecord.safeParse(parseJson(Buffer.from(bytes).toString())).data ?? noRuns;
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function failedEnd(code: string, message: string): RunEnd {
  return { how: 'failed', code, message: message.slice(0, messageCharactersMax) };
}

/** A run begins; one before it that never ended was killed, for it held the lock of the state. */
export function withBegun(record: RunRecord, begun: BegunRun): RunRecord {
  return { begun, last: lastOf(record) };
}

/** The last run that is over. To be asked only while no run is under way. */
export function lastOf({ begun, last }: RunRecord): EndedRun | null {
  return begun === null ? last : { ...begun, endedMs: null, end: { how: 'killed' } };
}
