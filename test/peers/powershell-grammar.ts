import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as z from 'zod';
import { peerFolder } from './server-process.ts';

/** A node of PowerShell's syntax. */
export interface ScriptNode {
  readonly type: string;
  readonly text: string;
  readonly line: number;
}

const packageShape = z.object({
  Parser: z.custom<{
    init(): Promise<void>;
    new (): { setLanguage(language: unknown): void; parse(text: string): { readonly rootNode: TreeNode } | null };
  }>(),
  Language: z.custom<{ load(bytes: Uint8Array): Promise<unknown> }>(),
});

interface TreeNode {
  readonly type: string;
  readonly text: string;
  readonly isError: boolean;
  readonly isMissing: boolean;
  readonly startPosition: { readonly row: number };
  readonly children: readonly (TreeNode | null)[];
}

/** What parses a script: its nodes, and the lines that are no PowerShell. */
export async function openPowershellGrammar(): Promise<
  (script: string) => { readonly nodes: readonly ScriptNode[]; readonly broken: readonly number[] }
> {
  const modules = join(peerFolder('powershell-grammar'), 'node_modules');
  const loaded: unknown = await import(pathToFileURL(join(modules, 'web-tree-sitter/web-tree-sitter.js')).href);
  const { Parser, Language } = packageShape.parse({ ...(loaded as object) });
  await Parser.init();
  const parser = new Parser();
  const grammar = await readFile(join(modules, 'tree-sitter-powershell/tree-sitter-powershell.wasm'));
  parser.setLanguage(await Language.load(grammar));
  return (script) => {
    const tree = parser.parse(script);
    if (tree === null) throw new Error('nothing was parsed');
    const all = [...below(tree.rootNode)];
    return {
      nodes: all.map(({ type, text, startPosition }) => ({ type, text, line: startPosition.row + 1 })),
      broken: all
        .filter(({ isError, isMissing }) => isError || isMissing)
        .map(({ startPosition }) => startPosition.row + 1),
    };
  };
}

function* below(node: TreeNode): Generator<TreeNode> {
  yield node;
  for (const child of node.children) if (child !== null) yield* below(child);
}
