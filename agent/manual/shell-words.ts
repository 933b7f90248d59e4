import { type DescribedCommand, type DescribedValue, everyCommand, optionsAt } from './describe-program.ts';

/** What the completions of all shells are made of. */

/** Where the word leads on the way from one command to the next. */
export interface Step {
  readonly from: string;
  readonly word: string;
  readonly to: string;
}

/** An option that takes the word after it, where it may be typed. */
export interface ValueOption {
  readonly at: string;
  readonly flags: readonly string[];
  readonly value: DescribedValue;
}

export function stepsOf(program: DescribedCommand): readonly Step[] {
  return everyCommand(program).flatMap(({ path, commands }) =>
    commands.map((inner) => ({ from: path, word: inner.name, to: inner.path })),
  );
}

export function valueOptionsOf(program: DescribedCommand): readonly ValueOption[] {
  return everyCommand(program).flatMap((command) =>
    optionsAt(command, program).flatMap(({ flags, value }) =>
      value === null ? [] : [{ at: command.path, flags, value }],
    ),
  );
}

/** Patterns of a shell's `case`: the command so far, a colon, the word. */
export function patternsOf({ at, flags }: ValueOption): readonly string[] {
  return flags.map((flag) => quoted(`${at}:${flag}`));
}

/** One word for a shell, whatever is in it. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
