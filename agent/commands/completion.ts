import { Argument, type Command } from 'commander';
import { bashCompletion } from '../manual/bash-completion.ts';
import { type DescribedCommand, describeProgram } from '../manual/describe-program.ts';
import { fishCompletion } from '../manual/fish-completion.ts';
import { manPage } from '../manual/man-page.ts';
import { zshCompletion } from '../manual/zsh-completion.ts';
import { agentVersion } from '../version.ts';
import type { RunCommand } from './command.ts';

/** `failkit completion` and `failkit man`: made from the commands themselves, so that they can't say anything else. */

const shells: Readonly<Record<string, (program: DescribedCommand) => readonly string[]>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

export function register(program: Command, run: RunCommand): void {
  program
    .command('completion')
    .description('print what makes a shell complete commands and options')
    .addArgument(new Argument('<shell>', 'for which shell').choices(Object.keys(shells)))
    .action((shell: string, _options: unknown, command: Command) =>
      run(command, () => {
        const lines = shells[shell]?.(describeProgram(program)) ?? [];
        return { document: { shell, script: lines.join('\n') }, lines };
      }),
    );
  program
    .command('man')
    .description('print the manual page: failkit man > failkit.1')
    .action((_options: unknown, command: Command) =>
      run(command, () => {
        const lines = manPage(describeProgram(program), agentVersion());
        return { document: { page: lines.join('\n') }, lines };
      }),
    );
}
