/** What the syntax tree shows: types, forms, sizes, and how tests are skipped. */
import {
  type AstNode,
  child,
  inside,
  isNode,
  isProduct,
  lineAt,
  nameOf,
  type Rule,
  type SourceFile,
  sliceOf,
  violation,
} from './source-tree.ts';

/** A rule about single nodes: the message, or null when the node is fine. */
function nodeRule(
  rule: Pick<Rule, 'name' | 'breaks' | 'allows'>,
  applies: (path: string) => boolean,
  judge: (node: AstNode, file: SourceFile) => string | null,
): Rule {
  const check: Rule['check'] = (tree) =>
    tree
      .filter((file) => applies(file.path))
      .flatMap((file) =>
        file.nodes.flatMap((node) => {
          const message = judge(node, file);
          return message === null ? [] : [violation(file, node.start, message)];
        }),
      );
  return { ...rule, check };
}

const everywhere = (): boolean => true;

const noAny = nodeRule(
  {
    name: 'no `any`',
    breaks: [{ 'crypto/a.ts': 'export const a: any = 1;' }, { 'test/a.test.ts': 'const a = b as any;' }],
    allows: [{ 'crypto/a.ts': 'export const any: unknown = 1; // any' }],
  },
  everywhere,
  (node) => (node.type === 'TSAnyKeyword' ? 'parse it into a precise type; no `any`' : null),
);

/** It compares each connection's certificate with the pinned one before a byte is sent: docs/decisions/0070. */
const pinsCertificates = 'hypervisors/vsphere/vim25/trusted-agent.ts';

const tlsVerified = nodeRule(
  {
    name: 'TLS is always verified',
    breaks: [
      { 'storage-targets/s3.ts': 'connect({ rejectUnauthorized: false });' },
      { 'test/a.test.ts': "connect({ 'rejectUnauthorized': !true });" },
      { 'agent/a.ts': 'options.rejectUnauthorized = false;' },
      { 'demo/a.ts': "const env = { NODE_TLS_REJECT_UNAUTHORIZED: '0' };" },
      { 'hypervisors/vsphere/vim25/vim-session.ts': 'connect({ rejectUnauthorized: false });' },
    ],
    allows: [
      { 'agent/a.ts': 'connect({ rejectUnauthorized: true, ca });' },
      { [pinsCertificates]: 'const pinned = { rejectUnauthorized: false };' },
    ],
  },
  (path) => path !== pinsCertificates,
  (node, file) => {
    const name = nameOf(child(node, 'key')) ?? nameOf(child(child(node, 'left') ?? node, 'property'));
    const value = child(node, node.type === 'AssignmentExpression' ? 'right' : 'value');
    if (node.type !== 'Property' && node.type !== 'AssignmentExpression') return null;
    if (name === 'NODE_TLS_REJECT_UNAUTHORIZED') return 'never switch certificate checks off; trust the private CA';
    const isTrue = value !== null && sliceOf(file, value) === 'true';
    return name === 'rejectUnauthorized' && !isTrue
      ? 'never switch certificate checks off; trust the private CA'
      : null;
  },
);

const environmentInConfig = nodeRule(
  {
    name: 'the environment is read only in agent/config',
    breaks: [
      { 'storage-targets/s3.ts': "const region = process.env['AWS_REGION'];" },
      { 'agent/main.ts': 'const { env } = process;' },
      { 'replica/a.ts': "import { env } from 'node:process';" },
    ],
    allows: [
      {
        'agent/config/load.ts': 'const home = process.env.HOME;',
        'test/a.ts': 'process.env.X;',
        'agent/a.ts': 'a.env;',
      },
    ],
  },
  (path) => isProduct(path) && !path.startsWith('agent/config/'),
  (node) => {
    const message = 'read the environment in agent/config/ and pass the value in';
    if (node.type === 'MemberExpression')
      return nameOf(child(node, 'object')) === 'process' && nameOf(child(node, 'property')) === 'env' ? message : null;
    if (node.type === 'VariableDeclarator')
      return nameOf(child(node, 'init')) === 'process' && child(node, 'id')?.type === 'ObjectPattern' ? message : null;
    if (node.type === 'ImportDeclaration')
      return /^(node:)?process$/.test(nameOf(child(node, 'source')) ?? '') ? message : null;
    return null;
  },
);

const functionLinesMax = 70;
const functionTypes = new Set(['FunctionDeclaration', 'FunctionExpression', 'ArrowFunctionExpression']);
const testCalls = /^(describe|test|it|beforeEach|beforeAll|afterEach|afterAll)$/;

const shortFunctions = nodeRule(
  {
    name: `no function over ${functionLinesMax} lines`,
    breaks: [
      { 'crypto/a.ts': `export function a() {\n${'a();\n'.repeat(70)}}` },
      { 'test/a.test.ts': `test('a', () => {\n${'a();\n'.repeat(70)}});` },
      { 'crypto/a.ts': `class A { run = async () => {\n${'a();\n'.repeat(70)}}; }` },
    ],
    allows: [
      { 'crypto/a.ts': `export function a() {\n${'a();\n'.repeat(68)}}` },
      { 'test/a.test.ts': `describe('all', () => {\n${"test('a', () => {});\n".repeat(70)}});` },
    ],
  },
  everywhere,
  (node, file) => {
    if (!functionTypes.has(node.type)) return null;
    const lines = lineAt(file, node.end) - lineAt(file, node.start) + 1;
    if (lines <= functionLinesMax || (file.path.startsWith('test/') && listsTests(node))) return null;
    return `${lines} lines in one function, at most ${functionLinesMax}: split it where a good name appears`;
  },
);

/** A `describe` body is a list of functions, not a long one. */
function listsTests(node: AstNode): boolean {
  return inside(node).some((call) => call.type === 'CallExpression' && testCalls.test(rootName(call) ?? ''));
}

/** `test` of `test(…)`, `test.skipIf(…)(…)`, `test.for(…)(…)`. */
function rootName(node: AstNode | null): string | null {
  if (node?.type === 'CallExpression') return rootName(child(node, 'callee'));
  if (node?.type === 'MemberExpression') return rootName(child(node, 'object'));
  return nameOf(node);
}

const namedExports = nodeRule(
  {
    name: 'exports have names',
    breaks: [{ 'crypto/a.ts': 'export default function a() {}' }],
    allows: [{ 'vitest.config.ts': 'export default {};' }],
  },
  (path) => path.includes('/'),
  (node) => (node.type === 'ExportDefaultDeclaration' ? 'give the export a name' : null),
);

const noInheritance = nodeRule(
  {
    name: 'only errors inherit',
    breaks: [
      { 'crypto/a.ts': 'class A extends B {}' },
      { 'crypto/a.ts': 'class A extends stream.Transform {}' },
      { 'crypto/a.ts': 'class A extends B {}; class B implements C {}' },
    ],
    allows: [
      { 'crypto/a.ts': 'class A extends Error {}; class B extends TypeError {}; class C implements D {}' },
      { 'crypto/errors.ts': 'class Refused extends Error {}; class Denied extends Refused {}' },
    ],
  },
  isProduct,
  (node, file) => {
    const parent = /^Class(Declaration|Expression)$/.test(node.type) ? child(node, 'superClass') : null;
    if (parent === null || isError(sliceOf(file, parent), file)) return null;
    return `functions and data first: no class inherits from ${sliceOf(file, parent)}`;
  },
);

/** Or a kind of error, which stands beside it. */
function isError(parent: string, file: SourceFile): boolean {
  return /Error$/.test(parent) || file.text.includes(`class ${parent} extends Error {`);
}

const emptyNames = /^(I[A-Z][a-z]|Base[A-Z]|Abstract[A-Z])|(Impl|Manager|Helper|Helpers|Util|Utils)$/;
const declarations = /^(Class|TSInterface|TSTypeAlias|TSEnum)Declaration$/;

const tellingNames = nodeRule(
  {
    name: 'types are named for what they are',
    breaks: [
      { 'crypto/a.ts': 'interface IKey {}' },
      { 'crypto/a.ts': 'class KeyManager {}' },
      { 'crypto/a.ts': 'type BaseKey = string;' },
    ],
    allows: [
      { 'crypto/a.ts': 'class IoError {}; interface Baseline {}; type IPAddress = string; interface Identity {}' },
    ],
  },
  everywhere,
  (node) => {
    const name = declarations.test(node.type) ? nameOf(child(node, 'id')) : null;
    return name !== null && emptyNames.test(name) ? `${name} says how, not what; find the domain's word` : null;
  },
);

const errorsByCode = nodeRule(
  {
    name: 'errors are told apart by class or code, never by their text',
    breaks: [
      { 'storage-targets/s3.ts': "if (error.message.includes('NoSuchKey')) retry();" },
      { 'storage-targets/s3.ts': "if (cause.message === 'timeout') retry();" },
      { 'storage-targets/s3.ts': 'if (/timeout/.test(error.message)) retry();' },
    ],
    allows: [{ 'storage-targets/s3.ts': "log(error.message); if (error.code === 'ENOENT') retry();" }],
  },
  isProduct,
  (node) => {
    const message = 'never match an error by its text: use its class or its code';
    if (node.type === 'BinaryExpression')
      return [child(node, 'left'), child(node, 'right')].some(isErrorMessage) ? message : null;
    if (node.type !== 'CallExpression') return null;
    const method = nameOf(child(child(node, 'callee') ?? node, 'property')) ?? '';
    const receiver = child(child(node, 'callee') ?? node, 'object');
    const args = Array.isArray(node.arguments) ? node.arguments.filter(isNode) : [];
    if (/^(includes|startsWith|endsWith|match|search|indexOf)$/.test(method) && isErrorMessage(receiver))
      return message;
    return /^(test|exec)$/.test(method) && args.some(isErrorMessage) ? message : null;
  },
);

function isErrorMessage(node: AstNode | null): boolean {
  if (node?.type !== 'MemberExpression' || nameOf(child(node, 'property')) !== 'message') return false;
  return /^(e|err|error|cause|problem|reason)$/.test(nameOf(child(node, 'object')) ?? '');
}

const allTestsRun = nodeRule(
  {
    name: 'no test hides the others, and a skipped one says what it needs',
    breaks: [
      { 'test/a.test.ts': "test.only('a', () => {});" },
      { 'test/a.test.ts': "describe.skip('a', () => {});" },
      { 'test/a.test.ts': "test.skipIf(!minio)('a', () => {});" },
      { 'test/a.test.ts': "test('a', (t) => t.skip());" },
      { 'test/a.test.ts': "test('a', (t) => t.skip('later'));" },
      { 'test/a.test.ts': "test.todo('a');" },
    ],
    allows: [
      {
        'test/a.test.ts': "test.skipIf(!minio)('a (needs minio)', () => {}); test('a', (t) => t.skip('needs minio'));",
      },
      {
        'test/a.test.ts': 'test("a", ({ skip }) => skip(peer.needs)); test("b", (t) => { if (!peer) t.skip(needs); });',
      },
    ],
  },
  (path) => path.startsWith('test/'),
  (node, file) => {
    if (node.type !== 'CallExpression') return null;
    const callee = child(node, 'callee');
    const word = nameOf(callee?.type === 'MemberExpression' ? child(callee, 'property') : callee);
    const chain =
      callee?.type === 'CallExpression' ? nameOf(child(child(callee, 'callee') ?? callee, 'property')) : null;
    if (word === 'only' || chain === 'only') return 'take the `.only` away';
    if (word === 'todo') return 'write the test, or open an issue';
    if (!(word === 'skip' || chain === 'skipIf' || chain === 'runIf')) return null;
    return saysWhatIsMissing(file, node) ? null : 'a skipped test says what is missing: `needs X`';
  },
);

/** In a literal argument. A reason that is computed is judged when the tests run (test/lanes/tally-reporter.ts). */
function saysWhatIsMissing(file: SourceFile, call: AstNode): boolean {
  const args = Array.isArray(call.arguments) ? call.arguments.filter(isNode) : [];
  const reasons = args.filter((argument) => !functionTypes.has(argument.type));
  return reasons.some((argument) => argument.type !== 'Literal' || /\bneeds\b/.test(sliceOf(file, argument)));
}

export const codeRules: readonly Rule[] = [
  noAny,
  tlsVerified,
  environmentInConfig,
  shortFunctions,
  namedExports,
  noInheritance,
  tellingNames,
  errorsByCode,
  allTestsRun,
];
