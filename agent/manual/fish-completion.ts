import {
  type DescribedCommand,
  type DescribedOption,
  type DescribedValue,
  everyCommand,
  optionsAt,
} from './describe-program.ts';
import { stepsOf, valueOptionsOf } from './shell-words.ts';

/** A file for `~/.config/fish/completions`. */
export function fishCompletion(program: DescribedCommand): readonly string[] {
  const { name } = program;
  return [
    `# fish completion for ${name}: ${name} completion fish > ~/.config/fish/completions/${name}.fish`,
    `function __${name}_at`,
    '    set -l command ""',
    '    set -l isvalue 0',
    '    for word in (commandline -opc)[2..-1]',
    '        if test $isvalue = 1',
    '            set isvalue 0',
    '            continue',
    '        end',
    '        switch "$command:$word"',
    ...valueOptionsOf(program).flatMap(({ at, flags }) => [
      `            case ${flags.map((flag) => quotedForFish(`${at}:${flag}`)).join(' ')}`,
      '                set isvalue 1',
    ]),
    ...stepsOf(program).flatMap(({ from, word, to }) => [
      `            case ${quotedForFish(`${from}:${word}`)}`,
      `                set command ${quotedForFish(to)}`,
    ]),
    '        end',
    '    end',
    '    test "$command" = "$argv[1]"',
    'end',
    `complete -c ${name} -f`,
    ...everyCommand(program).flatMap((command) => atCommand(command, program)),
  ];
}

function atCommand(command: DescribedCommand, program: DescribedCommand): readonly string[] {
  const condition = `__${program.name}_at ${quotedForFish(command.path)}`;
  const start = `complete -c ${program.name} -n ${quotedForFish(condition)}`;
  const choices = command.arguments.flatMap(({ value }) => value.choices);
  return [
    ...command.commands.map((inner) => `${start} -a ${inner.name} -d ${quotedForFish(inner.description)}`),
    ...(choices.length > 0 ? [`${start} -a ${quotedForFish(choices.join(' '))}`] : []),
    ...(command.arguments.some(({ value }) => value.isPath) ? [`${start} -F`] : []),
    ...optionsAt(command, program).map((option) => `${start} ${optionOf(option)}`),
  ];
}

function optionOf({ flags, description, value }: DescribedOption): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
  return [...names, ...(value === null ? [] : [argumentOf(value)]), `-d ${quotedForFish(description)}`].join(' ');
}

function argumentOf({ choices, isPath }: DescribedValue): string {
  if (isPath) return '-r -F';
  return choices.length === 0 ? '-x' : `-x -a ${quotedForFish(choices.join(' '))}`;
}

/** Fish knows two escapes between single quotes. */
function quotedForFish(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
