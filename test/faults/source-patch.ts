/** A change to one source file of the agent, made as it is loaded. `from` must be found exactly once. */
export interface SourcePatch {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}
