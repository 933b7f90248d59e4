import { type ExitCode, exitCodes } from './remedy.ts';

/** Of a command that looks at many things: the highest is the gravest of those that it can find. 0 where nothing is wrong. */
export function highestExitCode(codes: readonly ExitCode[]): ExitCode {
  return Object.values(exitCodes).findLast((code) => codes.includes(code)) ?? exitCodes.ok;
}
