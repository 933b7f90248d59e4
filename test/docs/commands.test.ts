import { describe, expect, it } from 'vitest';
import { runCli } from '../../agent/cli.ts';
import { neverHangUp } from '../../agent/interrupt.ts';
import { codeBlocks, operatorDocuments, textOf } from './documents.ts';

/** A command line as a document shows it. */
interface Shown {
  readonly document: string;
  readonly line: string;
}

const shown: Shown[] = [];
for (const document of await operatorDocuments()) shown.push(...commandsIn(document, await textOf(document)));

describe('every failkit command in the documents', () => {
  it('is looked at', () => {
    expect(shown.length).toBeGreaterThan(15);
  });

  it.each(shown)('$document: $line', async ({ line }) => {
    const words = line.split(/\s+/).slice(1);
    const command = commandWords(words);
    const help = await helpOf(command);
    expect(help.includes(`Usage: failkit ${command.join(' ')}`), `${command.join(' ')} is a command`).toBe(true);
    const known = help + (await helpOf([]));
    for (const option of words.filter((word) => word.startsWith('--')))
      expect(known, `${option} of: ${line}`).toMatch(new RegExp(`(^|[\\s,])${option}(\\s|=|$)`, 'm'));
  });
});

/** In shell blocks, and in text between backticks. */
function commandsIn(document: string, text: string): readonly Shown[] {
  const lines = ['sh', ''].flatMap((language) => codeBlocks(text, language)).flatMap((block) => block.split('\n'));
  const quoted = [...text.matchAll(/`((?:bin\/)?failkit [^`\n]+)`/g)].map(([, line = '']) => line);
  const found = [...lines.map((line) => line.trim()), ...quoted].filter((line) => /^(bin\/)?failkit [a-z-]/.test(line));
  return [...new Set(found)].map((line) => ({ document, line: line.replace(/\s*#.*$/, '') }));
}

/** `root certify` of `--config x.yaml root certify --root-key y file`. */
function commandWords(words: readonly string[]): readonly string[] {
  const start = words[0] === '--config' ? 2 : 0;
  const [first = '', second = ''] = words.slice(start);
  return ['root', 'config', 'cache', 'pin', 'keys'].includes(first) && !second.startsWith('-')
    ? [first, second]
    : [first];
}

async function helpOf(command: readonly string[]): Promise<string> {
  let text = '';
  const stream = {
    write: (part: string) => {
      text += part;
    },
  };
  const host = {
    stdout: stream,
    stderr: stream,
    environment: {},
    signal: new AbortController().signal,
    onHangUp: neverHangUp,
  };
  await runCli([...command, '--help'], host);
  return text;
}
