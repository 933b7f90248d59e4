/** How far a command is. */
export interface Progress {
  /** What it works on. */
  readonly title: string;
  /** 0 to 1; null or missing where nobody knows. */
  readonly share?: number | null;
  /** The most important first: what a narrow terminal has no room for is left out from the end. */
  readonly facts?: readonly string[];
  /** What was skipped, sent, found; in a line of their own where there is one. */
  readonly details?: readonly string[];
}
