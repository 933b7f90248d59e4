/** No PowerShell runs here: what can be told of a script without it is told by its syntax. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openPowershellGrammar } from '../../peers/powershell-grammar.ts';
import { peerNeeds } from '../../peers/server-process.ts';

const needs = await peerNeeds('powershell-grammar');
const root = join(import.meta.dirname, '../../..');
const scripts = ['hypervisors/hyperv/hyperv-worker.ps1', 'docs/operations/hyperv-acceptance.ps1'];
const textOf = (path: string): string => readFileSync(join(root, path), 'utf8');

describe.skipIf(needs !== null)(`scripts for Windows PowerShell (${needs ?? 'a real grammar'})`, () => {
  let parse: Awaited<ReturnType<typeof openPowershellGrammar>>;
  beforeAll(async () => {
    parse = await openPowershellGrammar();
  });

  it.for(scripts)('%s is PowerShell, to its last line', (path) => {
    expect(parse(textOf(path)).broken).toEqual([]);
  });

  it('is told from what is none', () => {
    const script = textOf('hypervisors/hyperv/hyperv-worker.ps1');
    for (const broken of [script.replace('function Get-Value(', 'function Get-Value(('), script.replace(/\}\s*$/, '')])
      expect(parse(broken).broken).not.toEqual([]);
  });

  it.for(scripts)('%s puts no value into a text, where it could become part of a query or a command', (path) => {
    const { nodes } = parse(textOf(path));
    const expandable = nodes.filter(({ type }) => /^expandable_/.test(type));
    expect(expandable.map(({ text, line }) => `${line}: ${text}`)).toEqual([]);
    expect(nodes.filter(({ type }) => type === 'verbatim_string_characters').length).toBeGreaterThan(50);
  });

  it.for(scripts)('%s runs no text, and asks no query', (path) => {
    const { nodes } = parse(textOf(path));
    const words = nodes.filter(({ type }) => ['command_name', 'command_parameter', 'member_name'].includes(type));
    expect(words.length).toBeGreaterThan(50);
    const risky =
      /^(Invoke-Expression|iex|Invoke-Command|Add-Type|Get-WmiObject|gwmi|-Query|-Filter|-EncodedCommand|CreateScript|NewScriptBlock|InvokeScript)$/i;
    expect(words.filter(({ text }) => risky.test(text)).map(({ text, line }) => `${line}: ${text}`)).toEqual([]);
  });
});
