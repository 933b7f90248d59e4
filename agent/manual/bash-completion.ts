import { type DescribedCommand, type DescribedValue, everyCommand, optionsAt } from './describe-program.ts';
import { patternsOf, quoted, stepsOf, valueOptionsOf } from './shell-words.ts';

/** Works without the package bash-completion, from bash 4. */
export function bashCompletion(program: DescribedCommand): readonly string[] {
  const { name } = program;
  return [
    `# bash completion for ${name}. Take it into ~/.bashrc: source <(${name} completion bash)`,
    `_${name}() {`,
    `  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command= word words= i`,
    '  COMPREPLY=()',
    '  # Bash makes words of their own of the parts of --option=value.',
    `  [[ $previous == = ]] && previous=\${COMP_WORDS[COMP_CWORD - 2]}`,
    '  [[ $current == = ]] && current=',
    '  for ((i = 1; i < COMP_CWORD; i++)); do',
    `    word=\${COMP_WORDS[i]}`,
    '    case $command:$word in',
    ...valueOptionsOf(program).map((option) => `      ${patternsOf(option).join(' | ')}) ((i += 1)) ;;`),
    ...stepsOf(program).map(({ from, word, to }) => `      ${quoted(`${from}:${word}`)}) command=${quoted(to)} ;;`),
    '    esac',
    '  done',
    '  case $command:$previous in',
    ...valueOptionsOf(program).map(
      (option) => `    ${patternsOf(option).join(' | ')}) ${answer(option.value)}; return ;;`,
    ),
    '  esac',
    '  case $command in',
    ...everyCommand(program).flatMap((command) => atCommand(command, program)),
    '  esac',
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    '}',
    `complete -F _${name} ${name}`,
  ];
}

function atCommand(command: DescribedCommand, program: DescribedCommand): readonly string[] {
  const flags = optionsAt(command, program).flatMap((option) => option.flags);
  const names = command.commands.map((inner) => inner.name);
  const choices = command.arguments.flatMap(({ value }) => value.choices);
  const plain = [...names, ...choices];
  const takesPath = command.arguments.some(({ value }) => value.isPath);
  const otherwise = takesPath
    ? `${filesInto}; return`
    : `words=${quoted((plain.length > 0 ? plain : flags).join(' '))}`;
  return [
    `    ${quoted(command.path)})`,
    `      if [[ $current == -* ]]; then words=${quoted(flags.join(' '))}; else ${otherwise}; fi ;;`,
  ];
}

const filesInto = 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current")';

function answer({ choices, isPath }: DescribedValue): string {
  if (isPath) return filesInto;
  return choices.length === 0 ? ':' : `COMPREPLY=($(compgen -W ${quoted(choices.join(' '))} -- "$current"))`;
}
