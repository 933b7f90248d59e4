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
    `function __${name}_names`,
    '    set -l words (commandline -opc)',
    '    set -l config',
    '    for i in (seq (count $words))',
    `        string match -q -- '--config=*' $words[$i]; and set config --config (string replace -- '--config=' '' $words[$i])`,
    `        test "$words[$i]" = --config; and set config --config $words[(math $i + 1)]`,
    '    end',
    `    $words[1] names --of $argv[1] $config 2>/dev/null`,
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
    ...command.arguments.flatMap(({ value }) =>
      value.names === null ? [] : [`${start} -a '(__${program.name}_names ${value.names})'`],
    ),
    ...optionsAt(command, program).map((option) => `${start} ${optionOf(program.name, option)}`),
  ];
}

function optionOf(name: string, { flags, description, value }: DescribedOption): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
  return [...names, ...(value === null ? [] : [argumentOf(name, value)]), `-d ${quotedForFish(description)}`].join(' ');
}

function argumentOf(name: string, { choices, isPath, names }: DescribedValue): string {
  if (isPath) return '-r -F';
  if (names !== null) return `-x -a '(__${name}_names ${names})'`;
  return choices.length === 0 ? '-x' : `-x -a ${quotedForFish(choices.join(' '))}`;
}

/** Fish knows two escapes between single quotes. */
function quotedForFish(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
