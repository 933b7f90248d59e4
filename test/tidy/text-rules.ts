/** What the plain text shows: names, sizes, words, and things that have no place in a repository. */
import { posix } from 'node:path';
import { isProduct, nameOf, type Rule, type SourceFile, type Violation, violation } from './source-tree.ts';

const fileLinesMax = 500;

const shortFiles: Rule = {
  name: `no source file over ${fileLinesMax} lines`,
  check: (tree) =>
    tree
      .filter((file) => /\.(ts|mjs|py|sh)$/.test(file.path) && linesOf(file) > fileLinesMax)
      .map((file) =>
        violation(file, 0, `${linesOf(file)} lines, at most ${fileLinesMax}: split it where a good name appears`),
      ),
  breaks: [{ 'crypto/a.ts': 'a();\n'.repeat(501) }],
  allows: [{ 'crypto/a.ts': 'a();\n'.repeat(500), 'docs/format.md': 'a\n'.repeat(900) }],
};

function linesOf(file: SourceFile): number {
  return file.text.replace(/\n$/, '').split('\n').length;
}

const vagueNames = /^(utils?|helpers?|common|types|misc|shared|index|base|lib)(\.|$)/;
const wellKnownNames =
  /^(README|LICENSE|NOTICE|SECURITY|CONTRIBUTING|CHANGELOG|CODE_OF_CONDUCT|Dockerfile|Makefile)(\.md)?$/;

const fileNames: Rule = {
  name: 'files are kebab-case and named after what they define',
  check: (tree) =>
    tree.flatMap((file) => {
      const parts = file.path.split('/');
      const vague = parts.filter((part) => vagueNames.test(part));
      const odd = parts.filter((part) => !isKebab(part, file.path));
      return [
        ...vague.map((part) =>
          violation(file, 0, `${part} names nothing: a thing belongs to the folder whose word it is`),
        ),
        ...odd.map((part) => violation(file, 0, `${part} is not kebab-case`)),
      ];
    }),
  breaks: [
    { 'crypto/utils.ts': '' },
    { 'agent/helpers/log.ts': '' },
    { 'crypto/types.ts': '' },
    { 'crypto/index.ts': '' },
    { 'crypto/dataKey.ts': '' },
    { 'docs/Format_v1.md': '' },
  ],
  allows: [
    { 'crypto/data-key.ts': '', 'README.md': '', '.ci/run': '', 'test/a/test_reader.py': '', 'a/b.slow.test.ts': '' },
  ],
};

function isKebab(part: string, path: string): boolean {
  if (wellKnownNames.test(part)) return true;
  return path.endsWith('.py') ? /^[a-z0-9_.-]+$/.test(part) : /^\.?[a-z0-9]+([.-][a-z0-9]+)*$/.test(part);
}

/** Comments and string literals of a program; the whole of any other text. */
function proseOf(file: SourceFile): { readonly text: string; readonly start: number }[] {
  if (!/\.(ts|mjs)$/.test(file.path)) return [{ text: file.text, start: 0 }];
  const strings = file.nodes.flatMap((node) => {
    const text = node.type === 'TemplateElement' ? file.text.slice(node.start, node.end) : nameOf(node);
    return text !== null && /^(Literal|TemplateElement)$/.test(node.type) ? [{ text, start: node.start }] : [];
  });
  return [...file.comments.map(({ value, start }) => ({ text: value, start })), ...strings];
}

/** Our word is "recovery point"; quoted or in backticks the other word is somebody else's. */
const otherWord = /\bback-?ups?\b/gi;

const ourWords: Rule = {
  name: 'a recovery point is not called by another name',
  check: (tree) =>
    tree
      .filter((file) => (isProduct(file.path) && !file.path.startsWith('hypervisors/')) || file.path.endsWith('.md'))
      .flatMap((file) => [
        ...proseOf(file).flatMap(({ text, start }) =>
          [...withoutQuotes(text).matchAll(otherWord)].map((match) =>
            violation(file, start + match.index, `"${match[0]}": our word is "recovery point", or "replica"`),
          ),
        ),
        ...file.nodes
          .filter((node) => node.type === 'Identifier' && /backup/i.test(nameOf(node) ?? ''))
          .map((node) => violation(file, node.start, `${nameOf(node)}: our word is "recovery point", or "replica"`)),
      ]),
  breaks: [
    { 'agent/a.ts': 'const lastBackup = 1;' },
    { 'agent/a.ts': "log('backup finished');" },
    { 'agent/a.ts': '// Starts the backup.' },
    { 'docs/format.md': 'Each backup has an entry.' },
  ],
  allows: [
    { 'docs/a.md': 'What others call a "backup" or `virDomainBackupBegin` with `backup`.' },
    { 'hypervisors/kvm/a.ts': 'const backupJob = 1;', 'test/a.ts': "// restic's backup" },
  ],
};

/** Blanks of the same length, so that line numbers stay right. */
function withoutQuotes(text: string): string {
  return text.replace(/```[\s\S]*?```|`[^`\n]*`|"[^"\n]*"|“[^”\n]*”/g, (quoted) => quoted.replace(/[^\n]/g, ' '));
}

const checkpointsStayInside: Rule = {
  name: 'a checkpoint is the hypervisor’s object, so the word stays in hypervisors/',
  check: (tree) =>
    tree
      .filter((file) => isProduct(file.path) && !file.path.startsWith('hypervisors/'))
      .flatMap((file) =>
        file.nodes
          .filter((node) => node.type === 'Identifier' && /checkpoint/i.test(nameOf(node) ?? ''))
          .map((node) => violation(file, node.start, `${nameOf(node)}: say "reference point" or "run journal"`)),
      ),
  breaks: [{ 'agent/a.ts': 'const lastCheckpoint = 1;' }],
  allows: [{ 'hypervisors/kvm/a.ts': 'const checkpoint = 1;', 'agent/a.ts': 'const referencePoint = 1;' }],
};

const laterMarks = new RegExp(
  `\\b(${['TO', 'FIX', 'XX'].map((half, i) => half + ['DO', 'ME', 'X'][i]).join('|')})\\b`,
  'g',
);

const nothingLeftForLater: Rule = textRule(
  'what is left to do is an issue, not a comment',
  (file) => (file.nodes.length > 0 ? file.comments.map(({ value, start }) => ({ text: value, start })) : proseOf(file)),
  laterMarks,
  (mark) => `${mark}: do it, or open an issue`,
  [{ 'crypto/a.ts': `// ${'TO'}${'DO'}: check\nconst a = 1;` }, { 'test/a.py': `# ${'FIX'}${'ME'}` }],
  [{ 'crypto/a.ts': '// All done.\nconst a = 1;' }],
);

/** Spelled in pieces, or this file would break its own rule. */
const packageHosts = [
  ['registry', 'npmjs', 'org'],
  ['registry', 'yarnpkg', 'com'],
  ['pypi', 'org'],
  ['files', 'pythonhosted', 'org'],
  ['proxy', 'golang', 'org'],
  ['static', 'crates', 'io'],
  ['index', 'crates', 'io'],
  ['repo1', 'maven', 'org'],
  ['repo', 'maven', 'apache', 'org'],
  ['deb', 'debian', 'org'],
].map((parts) => parts.join('\\.'));
const machinePaths = [
  ['', 'work', ''],
  ['', 'root', ''],
  ['', 'home', '[a-z]+', ''],
  ['', 'Users', '[A-Za-z]+', ''],
].map((parts) => `(?<![\\w.}*-])${parts.join('/')}`);

const noPlaces: Rule = textRule(
  'no package registry and no path of one machine is named',
  (file) => [{ text: file.text, start: 0 }],
  new RegExp([...packageHosts, ...machinePaths].join('|'), 'g'),
  (place) => `${place}: the repository must work on any machine, with any registry`,
  [
    { '.ci/run': `npm ci --registry https://${['registry', 'npmjs', 'org'].join('.')}` },
    { 'docs/a.md': `See ${['', 'work', 'main'].join('/')}.` },
    { 'test/a.ts': `const a = '${['', 'home', 'ann', 'a'].join('/')}';` },
  ],
  [{ 'docs/a.md': 'Run `npm ci` in the clone; state is in /var/lib/failkit, see https://example.org/work/a.' }],
);

/** Notes that are not in the repository: whoever reads the repository can't open them. */
const absentNotes = new RegExp(
  ['DESIGN', 'STYLE']
    .map((name) => `\\b${name}\\.md\\b`)
    .concat('\\bresearch/[a-z-]+\\.md')
    .join('|'),
  'g',
);

const standsAlone: Rule = textRule(
  'the repository stands alone',
  (file) => [{ text: file.text, start: 0 }],
  absentNotes,
  (note) => `${note} is not in this repository: say it here, or in a decision record`,
  [{ 'crypto/a.ts': `// See ${'DESIGN'}${'.md'} §3.` }, { 'docs/a.md': `as ${'research/'}${'kvm.md'} says` }],
  [{ 'crypto/a.ts': '// See docs/format.md, "Segments".' }],
);

function textRule(
  name: string,
  parts: (file: SourceFile) => readonly { readonly text: string; readonly start: number }[],
  pattern: RegExp,
  message: (found: string) => string,
  breaks: Rule['breaks'],
  allows: Rule['allows'],
): Rule {
  const check = (tree: readonly SourceFile[]): Violation[] =>
    tree.flatMap((file) =>
      parts(file).flatMap(({ text, start }) =>
        [...text.matchAll(pattern)].map((match) => violation(file, start + match.index, message(match[0]))),
      ),
    );
  return { name, check, breaks, allows };
}

const linksLead: Rule = {
  name: 'links in the documents lead somewhere',
  check: (tree) => {
    const paths = tree.map((file) => file.path);
    return tree
      .filter((file) => file.path.endsWith('.md'))
      .flatMap((file) =>
        [...withoutQuotes(file.text).matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)/g)]
          .filter(([, link = '']) => !leads(posix.join(posix.dirname(file.path), link), paths))
          .map((match) => violation(file, match.index, `${match[1]} does not exist`)),
      );
  },
  breaks: [{ 'docs/a.md': 'See [the format](format.md).' }],
  allows: [{ 'docs/a.md': '[b](../b/) [c](c.md#x) [d](https://example.org)', 'b/x.md': '', 'docs/c.md': '' }],
};

function leads(target: string, paths: readonly string[]): boolean {
  return paths.includes(target) || paths.some((path) => path.startsWith(target.replace(/\/?$/, '/')));
}

export const textRules: readonly Rule[] = [
  shortFiles,
  fileNames,
  ourWords,
  checkpointsStayInside,
  nothingLeftForLater,
  noPlaces,
  standsAlone,
  linksLead,
];
