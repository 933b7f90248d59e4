/** An object is there, but is not the one that was published. */
export class ObjectAltered extends Error {
  readonly code = 'OBJECT_ALTERED';
  override readonly name = 'ObjectAltered';
}

/** Telling damage in the store from everything else that can go wrong: only damage is worth a finding, or a repair. */

/** What is wrong with one object of a replica. */
export interface Damage {
  /** Its name in the store. */
  readonly object: string;
  readonly code: string;
  /** In words for the operator. */
  readonly what: string;
  /** Recovery points that can't be restored because of it. */
  readonly points: readonly number[];
  /** False: nobody can tell whether these points are hurt, or were points at all. */
  readonly certain: boolean;
}

const damageCodes: ReadonlySet<string> = new Set([
  'AGENT_NOT_TRUSTED',
  'CHAIN_BROKEN',
  'CHAIN_INVALID',
  'COMMITMENT_MISMATCH',
  'CONTENT_MISMATCH',
  'CONTROL_TAMPERED',
  'FORMAT_INVALID',
  'OBJECT_ALTERED',
  'OBJECT_NOT_FOUND',
  'PAGE_REPLACED',
  'RANGE_INVALID',
  'RECORD_TAMPERED',
  'REPLICA_ROLLED_BACK',
  'SEGMENT_MISPLACED',
  'SIGNATURE_INVALID',
  'TRUST_BROKEN',
]);

/** True for errors that say *this object is not what it should be*; false for a store that is away, a key that is refused, a bug. */
export function isDamage(error: unknown): error is Error & { readonly code: string } {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && damageCodes.has(error.code);
}

/** Damage that hurts no point by itself. Rethrows what is no damage. */
export function damageOf(object: string, error: unknown): Damage {
  if (!isDamage(error)) throw error;
  return { object, code: error.code, what: error.message, points: [], certain: true };
}
