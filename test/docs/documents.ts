import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The documents as their readers see them: code blocks by language, tables by row. */

export const root = join(import.meta.dirname, '../..');

/** README.md and what lies in docs/, without the decision records: those tell of their own day. */
export async function operatorDocuments(): Promise<readonly string[]> {
  const found = await readdir(join(root, 'docs'), { recursive: true });
  const documents = found.filter((path) => path.endsWith('.md') && !path.startsWith('decisions/'));
  return ['README.md', ...documents.map((path) => `docs/${path}`).sort()];
}

export async function textOf(document: string): Promise<string> {
  return await readFile(join(root, document), 'utf8');
}

export function codeBlocks(text: string, language: string): readonly string[] {
  const blocks = text.matchAll(/^( *)```([a-z]*)\n([\s\S]*?)^\1```$/gm);
  return [...blocks]
    .filter(([, , tag]) => tag === language)
    .map(([, indent = '', , body = '']) => body.replace(new RegExp(`^${indent}`, 'gm'), ''));
}

/** Cells of every table row, without the titles and the line below them. */
export function tableRows(text: string): readonly (readonly string[])[] {
  const rows = text.split('\n').filter((line) => line.startsWith('|'));
  return rows
    .filter((line) => !/^\|[-| ]+\|$/.test(line))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
}
