import { exitCodes } from '../remedy.ts';
import { type DescribedCommand, everyCommand } from './describe-program.ts';

/** The manual in roff with the man macros, which man, groff and mandoc read. */
export function manPage(program: DescribedCommand, version: string): readonly string[] {
  const { name } = program;
  const [, ...commands] = everyCommand(program);
  return [
    `.TH ${name.toUpperCase()} 1 "" ${macroWord(`${name} ${version}`)} "User Commands"`,
    '.SH NAME',
    `${name} \\- ${text(lowerFirst(program.description).replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    `.B ${name}`,
    '[options] command [arguments]',
    '.SH DESCRIPTION',
    line(program.description),
    'A configuration says what is protected and where it goes.',
    '.SH OPTIONS',
    'These work with every command.',
    ...definitions(program.options),
    '.SH COMMANDS',
    ...commands.filter(({ commands: inner }) => inner.length === 0).flatMap((command) => commandSection(name, command)),
    '.SH EXIT STATUS',
    ...Object.entries(exitCodes).flatMap(([meaning, code]) => ['.TP', `.B ${code}`, line(meaning)]),
    '.SH SEE ALSO',
    'docs/operations in the package: configuration, recovery, keys, damage, exit codes.',
  ];
}

function commandSection(program: string, command: DescribedCommand): readonly string[] {
  return [
    `.SS ${macroWord(`${program} ${command.usage}`)}`,
    line(`${upperFirst(command.description)}.`),
    ...definitions([
      ...command.arguments.filter(({ description }) => description !== ''),
      ...command.options.filter(({ flags }) => !flags.includes('--help')),
    ]),
  ];
}

function definitions(list: readonly { readonly usage: string; readonly description: string }[]): readonly string[] {
  return list.flatMap(({ usage, description }) => ['.TP', `.B ${macroWord(usage)}`, line(description)]);
}

/** A line of text: one that begins with a dot or an apostrophe would be taken for a request. */
function line(words: string): string {
  return text(words).replace(/^(?=[.'])/, '\\&');
}

/** Hyphens stay hyphens, so that an option can be copied out of the manual. */
function text(words: string): string {
  return words.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('…', '...').replaceAll('–', '\\(en');
}

/** One argument of a macro. */
function macroWord(words: string): string {
  return `"${text(words).replaceAll('"', '\\(dq')}"`;
}

function lowerFirst(words: string): string {
  return words.slice(0, 1).toLowerCase() + words.slice(1);
}

function upperFirst(words: string): string {
  return words.slice(0, 1).toUpperCase() + words.slice(1);
}
