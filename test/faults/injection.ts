/** What goes wrong in a process that loads inject.ts. */
export interface Injection {
  /** Which of the counted calls, from 1; 0: none. */
  readonly at: number;
  readonly moment: 'before' | 'after';
  /** Sent to the process itself. */
  readonly signal?: 'SIGKILL' | 'SIGSTOP';
  /** Thrown by the call. */
  readonly errno?: 'EIO' | 'ENOSPC';
  /** Only calls whose name and arguments hold this text are counted. */
  readonly match?: string;
  /** Counting begins with the first call whose name and arguments hold this text. */
  readonly from?: string;
  /** File that gets the number of counted calls when the process ends by itself. */
  readonly countTo?: string;
}
