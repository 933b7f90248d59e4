import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { codeRules } from './tidy/code-rules.ts';
import { cloudSdks, folderImports, noBarrels } from './tidy/folder-rules.ts';
import { parseSource, type Rule, readTree, type SourceFile } from './tidy/source-tree.ts';
import { textRules } from './tidy/text-rules.ts';

const rules: readonly Rule[] = [folderImports, cloudSdks, noBarrels, ...codeRules, ...textRules];
const tree = readTree(join(import.meta.dirname, '..'));

test('the tree is really read', () => {
  expect(tree.map((file) => file.path)).toEqual(
    expect.arrayContaining(['package.json', 'test/tidy.test.ts', 'crypto/data-key.ts']),
  );
});

describe('this repository', () => {
  test.for(rules)('$name', (rule) => {
    const found = rule.check(tree).map(({ path, line, message }) => `${path}:${line}: ${message}`);
    expect(found).toEqual([]);
  });
});

describe('a rule that could not fail would be no rule', () => {
  test.for(rules)('$name', (rule) => {
    expect(rule.breaks).not.toHaveLength(0);
    for (const example of rule.breaks) expect(rule.check(treeOf(example)), JSON.stringify(example)).not.toEqual([]);
    for (const example of rule.allows) expect(rule.check(treeOf(example)), JSON.stringify(example)).toEqual([]);
  });
});

function treeOf(example: Readonly<Record<string, string>>): SourceFile[] {
  return Object.entries(example).map(([path, text]) => parseSource(path, text));
}
