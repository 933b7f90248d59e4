import type { Argument, Command, Option } from 'commander';

/** The command line as data, read from commander: what the help shows is what completions and the manual are made of. */

export interface DescribedOption {
  /** `--config`, and `-V` where there is a short form. */
  readonly flags: readonly string[];
  /** `--config <file>`. */
  readonly usage: string;
  readonly description: string;
  readonly value: DescribedValue | null;
}

export interface DescribedArgument {
  /** `[machines...]`. */
  readonly usage: string;
  readonly description: string;
  readonly value: DescribedValue;
}

export interface DescribedValue {
  readonly choices: readonly string[];
  readonly isPath: boolean;
  /** Of things in the configuration: the shell asks `failkit names` while somebody types. */
  readonly names: 'machine' | 'disk' | null;
}

export interface DescribedCommand {
  /** `root certify`; empty for the program itself. */
  readonly path: string;
  readonly name: string;
  /** `root certify [options] [file]`. */
  readonly usage: string;
  readonly description: string;
  readonly arguments: readonly DescribedArgument[];
  readonly options: readonly DescribedOption[];
  readonly commands: readonly DescribedCommand[];
}

export function describeProgram(program: Command): DescribedCommand {
  return describeCommand(program, '');
}

function describeCommand(command: Command, path: string): DescribedCommand {
  const help = command.createHelp();
  return {
    path,
    name: command.name(),
    usage: [path, command.usage()].filter((part) => part !== '').join(' '),
    description: command.description(),
    arguments: command.registeredArguments.map(describeArgument),
    options: help.visibleOptions(command).map((option) => describeOption(option, help.optionDescription(option))),
    commands: help
      .visibleCommands(command)
      .map((inner) => describeCommand(inner, [path, inner.name()].filter((part) => part !== '').join(' '))),
  };
}

function describeOption(option: Option, description: string): DescribedOption {
  const takesValue = option.required || option.optional;
  return {
    flags: [option.short, option.long].filter((flag) => flag !== undefined),
    usage: option.flags,
    description,
    value: takesValue ? describeValue(option.flags, option.argChoices) : null,
  };
}

function describeArgument(argument: Argument): DescribedArgument {
  const inner = `${argument.name()}${argument.variadic ? '...' : ''}`;
  const usage = argument.required ? `<${inner}>` : `[${inner}]`;
  return { usage, description: argument.description, value: describeValue(usage, argument.argChoices) };
}

function describeValue(usage: string, choices: readonly string[] | undefined): DescribedValue {
  return {
    choices: choices ?? [],
    isPath: /[<[](file|folder|path|directory)/.test(usage),
    names: /[<[]machines?\b/.test(usage) ? 'machine' : /^--disk\b/.test(usage) ? 'disk' : null,
  };
}

/** The program and all its commands, each before those below it. */
export function everyCommand(command: DescribedCommand): readonly DescribedCommand[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

/** What may be typed after a command: its own options, and the program's where the command has none of that name. */
export function optionsAt(command: DescribedCommand, program: DescribedCommand): readonly DescribedOption[] {
  if (command === program) return command.options;
  const own = new Set(command.options.flatMap(({ flags }) => flags));
  const inherited = program.options.filter(({ flags }) => !flags.some((flag) => own.has(flag) || flag === '--version'));
  return [...command.options, ...inherited];
}
