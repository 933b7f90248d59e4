/** What the demo says of a step did not hold. The demo ends there, with exit code 1. */
export class ClaimFailed extends Error {
  readonly code = 'CLAIM_FAILED';
  override readonly name = 'ClaimFailed';
}

export function claim(holds: boolean, what: string): asserts holds {
  if (!holds) throw new ClaimFailed(what);
}
