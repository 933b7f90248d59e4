import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSync } from 'oxc-parser';

/** A node of the syntax tree, in the ESTree shape with TypeScript's additions. */
export interface AstNode {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [field: string]: unknown;
}

export interface Comment {
  readonly value: string;
  readonly start: number;
}

export interface SourceFile {
  /** From the repository's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  /** Every node, parents before children; empty for what is not TypeScript or JavaScript. */
  readonly nodes: readonly AstNode[];
  readonly comments: readonly Comment[];
}

export interface Violation {
  readonly path: string;
  readonly line: number;
  readonly message: string;
}

/** A statement about the whole tree. `breaks` and `allows` are small trees that prove the rule can fail, and can pass. */
export interface Rule {
  readonly name: string;
  readonly check: (tree: readonly SourceFile[]) => readonly Violation[];
  readonly breaks: readonly Readonly<Record<string, string>>[];
  readonly allows: readonly Readonly<Record<string, string>>[];
}

const sourcePattern = /\.(ts|mts|js|mjs|cjs)$/;
const textPattern = /\.(ts|mts|js|mjs|cjs|json|jsonc|md|svg|py|sh|ya?ml|toml|txt|service)$|(^|\/)[A-Za-z-]+$/;
const generatedPattern = /(^|\/)package-lock\.json$|^fixtures\//;

export function parseSource(path: string, text: string): SourceFile {
  if (!sourcePattern.test(path)) return { path, text, nodes: [], comments: [] };
  const parsed = parseSync(path, text);
  const [problem] = parsed.errors;
  if (problem !== undefined) throw new Error(`${path} does not parse: ${problem.message}`);
  return { path, text, nodes: [...walk(parsed.program)], comments: parsed.comments };
}

/** Everything that is tracked, and what is new and not ignored: so the rules speak before the commit. */
export function readTree(root: string): SourceFile[] {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: root });
  const paths = [...new Set(listed.toString().split('\0'))].filter(
    (path) => textPattern.test(path) && !generatedPattern.test(path),
  );
  return paths.flatMap((path) => {
    const text = readIfPresent(join(root, path));
    return text === null || text.includes('\0') ? [] : [parseSource(path, text)];
  });
}

/** A file that was removed but is not yet committed is still listed. */
function readIfPresent(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EISDIR')) return null;
    throw error;
  }
}

function* walk(value: unknown): Generator<AstNode> {
  if (Array.isArray(value)) {
    for (const item of value) yield* walk(item);
  } else if (isNode(value)) {
    yield value;
    for (const field of Object.values(value)) if (typeof field === 'object') yield* walk(field);
  }
}

export function isNode(value: unknown): value is AstNode {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';
}

/** Nodes inside `node`, itself excluded. */
export function inside(node: AstNode): AstNode[] {
  return [...walk(node)].slice(1);
}

export function child(node: AstNode, field: string): AstNode | null {
  const value = node[field];
  return isNode(value) ? value : null;
}

/** The name of an identifier, or the text of a string literal; otherwise null. */
export function nameOf(node: AstNode | null): string | null {
  if (node === null) return null;
  const value = node.type === 'Literal' ? node.value : node.name;
  return typeof value === 'string' ? value : null;
}

export function sliceOf(file: SourceFile, node: AstNode): string {
  return file.text.slice(node.start, node.end);
}

export function lineAt(file: SourceFile, offset: number): number {
  return file.text.slice(0, offset).split('\n').length;
}

export function violation(file: SourceFile, offset: number, message: string): Violation {
  return { path: file.path, line: lineAt(file, offset), message };
}

/** Product code: what runs at a customer's site. */
export function isProduct(path: string): boolean {
  return /^(agent|crypto|drill|hypervisors|management-plane|replica|restore|storage-targets)\//.test(path);
}
