import { type DescribedCommand, type DescribedValue, everyCommand, optionsAt } from './describe-program.ts';
import { patternsOf, quoted, stepsOf, valueOptionsOf } from './shell-words.ts';

/** A file for a folder of `$fpath`, or to be sourced after compinit. */
export function zshCompletion(program: DescribedCommand): readonly string[] {
  const { name } = program;
  return [
    `#compdef ${name}`,
    `# zsh completion for ${name}. Write it to a folder of $fpath: ${name} completion zsh > FOLDER/_${name}`,
    `_${name}() {`,
    '  local command= word i config=',
    '  local -a found',
    '  for ((i = 2; i < CURRENT; i++)); do',
    `    word=\${words[i]}`,
    `    [[ $word == --config ]] && config=\${words[i + 1]}`,
    `    [[ $word == --config=* ]] && config=\${word#--config=}`,
    '    case $command:$word in',
    ...valueOptionsOf(program).map((option) => `      ${patternsOf(option).join(' | ')}) ((i += 1)) ;;`),
    ...stepsOf(program).map(({ from, word, to }) => `      ${quoted(`${from}:${word}`)}) command=${quoted(to)} ;;`),
    '    esac',
    '  done',
    `  case $command:\${words[CURRENT - 1]} in`,
    ...valueOptionsOf(program).map(
      (option) => `    ${patternsOf(option).join(' | ')}) ${answer(option.value)}; return ;;`,
    ),
    '  esac',
    '  case $command in',
    ...everyCommand(program).flatMap((command) => atCommand(command, program)),
    '  esac',
    '}',
    `if [[ $funcstack[1] == _${name} ]]; then _${name} "$@"; else compdef _${name} ${name}; fi`,
  ];
}

function atCommand(command: DescribedCommand, program: DescribedCommand): readonly string[] {
  const options = optionsAt(command, program).flatMap(({ flags, description }) =>
    flags.map((flag) => described(flag, description)),
  );
  const inner = command.commands.map(({ name, description }) => described(name, description));
  const choices = command.arguments.flatMap(({ value }) => value.choices).map(quoted);
  const takesPath = command.arguments.some(({ value }) => value.isPath);
  const named = command.arguments.find(({ value }) => value.names !== null)?.value.names ?? null;
  return [
    `    ${quoted(command.path)})`,
    `      if [[ \${words[CURRENT]} == -* ]]; then found=(${options.join(' ')}); _describe -o option found`,
    ...(inner.length > 0 ? [`      else found=(${inner.join(' ')}); _describe command found`] : []),
    ...(choices.length > 0 ? [`      else found=(${choices.join(' ')}); _describe value found`] : []),
    ...(takesPath ? ['      else _files'] : []),
    ...(named === null ? [] : [`      else ${namesOf(named)}`]),
    '      fi ;;',
  ];
}

/** In a description of zsh, a colon ends the word. */
function described(word: string, description: string): string {
  return quoted(`${word.replaceAll(':', '\\:')}:${description}`);
}

/** One name a line; `(Q)` and `~` read what was typed as the shell itself would, and run nothing. */
function namesOf(kind: string): string {
  return `found=(\${(f)"$(\${(Q)words[1]/#\\~/$HOME} names --of ${kind} \${config:+--config} \${config:+\${(Q)config/#\\~/$HOME}} 2>/dev/null)"}); compadd -a found`;
}

function answer({ choices, isPath, names }: DescribedValue): string {
  if (isPath) return '_files';
  if (names !== null) return namesOf(names);
  return choices.length === 0 ? ':' : `found=(${choices.map(quoted).join(' ')}); _describe value found`;
}
