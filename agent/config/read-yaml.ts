import {
  type Document,
  type ErrorCode,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml';
import type { ConfigProblem } from './config-invalid.ts';

export interface ParsedYaml {
  /** Plain objects, arrays and scalars. */
  readonly value: unknown;
  /** The line of the value at a path; of the key itself when asked; of the nearest parent when it is not there. */
  lineOf(path: readonly PropertyKey[], aboutKey: boolean): number;
}

/** A configuration that lists no aliases by the hundred is one that a person wrote. */
const aliasesMax = 100;

/** The parser's own messages quote what they stumble over, and that may be a secret. */
const whatIsWrong = {
  BAD_ALIAS: 'a value that begins with * is an alias in YAML: put it in quotes',
  BAD_DQ_ESCAPE: 'a backslash in double quotes begins an escape: double it, or use single quotes',
  BAD_INDENT: 'the indentation is wrong',
  BAD_SCALAR_START: 'this character may not begin a value: put the value in quotes',
  BLOCK_AS_IMPLICIT_KEY: 'a key and its value can not begin inside another value: check indentation and colons',
  DUPLICATE_KEY: 'the same key stands here twice',
  MISSING_CHAR: 'a bracket, quote, comma or colon is missing',
  MULTIPLE_DOCS: 'a configuration is one YAML document: remove what follows ---',
  TAB_AS_INDENT: 'a tab may not indent: use blanks',
  TAG_RESOLVE_FAILED: 'a value that begins with ! is a tag in YAML: put it in quotes',
} as const satisfies Partial<Record<ErrorCode, string>>;

/** One YAML 1.2 document, keys unique, no custom tags. Never quotes the text in a problem: it may hold a secret. */
export function readYaml(text: string): ParsedYaml | { readonly problems: readonly ConfigProblem[] } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, schema: 'core', uniqueKeys: true });
  const found = [...document.errors, ...document.warnings];
  if (found.length > 0)
    return {
      problems: found.map(({ code, pos }) => ({
        line: lines.linePos(pos[0]).line,
        key: '',
        what: code in whatIsWrong ? whatIsWrong[code as keyof typeof whatIsWrong] : `not valid YAML (${code})`,
      })),
    };
  try {
    const value: unknown = document.toJS({ maxAliasCount: aliasesMax });
    return { value, lineOf: (path, aboutKey) => lines.linePos(positionOf(document, path, aboutKey)).line };
  } catch {
    return { problems: [aliasProblem(document, lines)] };
  }
}

/** Only aliases fail when the document turns into values. The library's message would quote one. */
function aliasProblem(document: Document.Parsed, lines: LineCounter): ConfigProblem {
  let line: number | null = null;
  visit(document, {
    Alias: (_key, alias) => {
      if (alias.resolve(document) !== undefined) return undefined;
      line = lines.linePos(startOf(alias) ?? 0).line;
      return visit.BREAK;
    },
  });
  return { line, key: '', what: line === null ? 'aliases that stand for too much' : whatIsWrong.BAD_ALIAS };
}

function positionOf(document: Document.Parsed, path: readonly PropertyKey[], aboutKey: boolean): number {
  let node: unknown = document.contents;
  let position = document.contents?.range[0] ?? 0;
  for (const [depth, step] of path.entries()) {
    const { key, value } = stepInto(node, step);
    const wanted = aboutKey && depth === path.length - 1 ? key : (value ?? key);
    position = startOf(wanted) ?? position;
    node = value;
  }
  return position;
}

function stepInto(node: unknown, step: PropertyKey): { readonly key?: unknown; readonly value?: unknown } {
  if (isSeq(node)) return { value: node.items[Number(step)] };
  if (!isMap(node)) return {};
  const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === step);
  return pair === undefined ? {} : { key: pair.key, value: pair.value };
}

function startOf(node: unknown): number | null {
  const range = (node as Partial<Node> | null | undefined)?.range;
  return range?.[0] ?? null;
}
