import { type DescribedCommand, type DescribedValue, everyCommand, optionsAt } from './describe-program.ts';
import { patternsOf, quoted, stepsOf, valueOptionsOf } from './shell-words.ts';

/** Works without the package bash-completion, from bash 4. */
export function bashCompletion(program: DescribedCommand): readonly string[] {
  const { name } = program;
  return [
    `# bash completion for ${name}. Take it into ~/.bashrc: source <(${name} completion bash)`,
    ...namesFunction(name),
    `_${name}() {`,
    `  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command= word words= i config=`,
    '  COMPREPLY=()',
    '  # Bash makes words of their own of the parts of --option=value.',
    `  [[ $previous == = ]] && previous=\${COMP_WORDS[COMP_CWORD - 2]}`,
    '  [[ $current == = ]] && current=',
    '  for ((i = 1; i < COMP_CWORD; i++)); do',
    `    word=\${COMP_WORDS[i]}`,
    `    [[ $word == --config ]] && config=\${COMP_WORDS[i + 1]}`,
    `    [[ $word == --config && $config == = ]] && config=\${COMP_WORDS[i + 2]}`,
    '    case $command:$word in',
    ...valueOptionsOf(program).map((option) => `      ${patternsOf(option).join(' | ')}) ((i += 1)) ;;`),
    ...stepsOf(program).map(({ from, word, to }) => `      ${quoted(`${from}:${word}`)}) command=${quoted(to)} ;;`),
    '    esac',
    '  done',
    '  case $command:$previous in',
    ...valueOptionsOf(program).map(
      (option) => `    ${patternsOf(option).join(' | ')}) ${answer(name, option.value)}; return ;;`,
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
  const named = command.arguments.find(({ value }) => value.names !== null)?.value.names ?? null;
  const otherwise = takesPath
    ? `${filesInto}; return`
    : named !== null
      ? `${namesInto(program.name, named)}; return`
      : `words=${quoted((plain.length > 0 ? plain : flags).join(' '))}`;
  return [
    `    ${quoted(command.path)})`,
    `      if [[ $current == -* ]]; then words=${quoted(flags.join(' '))}; else ${otherwise}; fi ;;`,
  ];
}

const filesInto = 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current")';

/** A configuration that was typed is taken as it would be read, without running anything that stands in it. */
function namesFunction(name: string): readonly string[] {
  return [
    `_${name}_names() {`,
    `  local program=\${COMP_WORDS[0]/#\\~/$HOME} config=\${3/#\\~/$HOME} found`,
    `  config=\${config//[\\\\\\'\\"]/}`,
    '  COMPREPLY=()',
    '  while IFS= read -r found; do',
    `    [[ $found == "$2"* ]] && COMPREPLY+=("$(printf %q "$found")")`,
    `  done < <("$program" names --of "$1" \${config:+--config "$config"} 2>/dev/null)`,
    '}',
  ];
}

function namesInto(name: string, kind: string): string {
  return `_${name}_names ${kind} "$current" "$config"`;
}

function answer(name: string, { choices, isPath, names }: DescribedValue): string {
  if (isPath) return filesInto;
  if (names !== null) return namesInto(name, names);
  return choices.length === 0 ? ':' : `COMPREPLY=($(compgen -W ${quoted(choices.join(' '))} -- "$current"))`;
}
