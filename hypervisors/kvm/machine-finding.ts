/** What was found out about a machine before a run does. */
export interface MachineFinding {
  /** Null: about the machine as a whole. */
  readonly disk: string | null;
  readonly level: 'ok' | 'warning' | 'failed';
  readonly what: string;
  readonly fix: string;
}

export function fine(what: string): MachineFinding {
  return { disk: null, level: 'ok', what, fix: '' };
}

export function worrying(disk: string | null, what: string, fix: string): MachineFinding {
  return { disk, level: 'warning', what, fix };
}

export function hopeless(what: string, fix: string): MachineFinding {
  return { disk: null, level: 'failed', what, fix };
}
