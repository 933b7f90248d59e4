import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { blockDigest, recordNonce, sealingKeys, sha256 } from '../../crypto/suite.ts';
import { toHex } from '../../replica/encoding.ts';
import { outcomeOf, vectorFiles, vectorsFolder } from './make-vectors.ts';
import { context, dataKey, filled } from './specimens.ts';

/** fixtures/vectors/, as its README describes it. */

const names = readdirSync(vectorsFolder).filter((name) => name.endsWith('.json'));
const read = (name: string) => JSON.parse(readFileSync(join(vectorsFolder, name), 'utf8'));

describe('the vectors', () => {
  it.each(names)('%s: what is stored is read, or refused, as it says', async (name) => {
    const { kind, given, about: _, section: _section, ...outcome } = read(name);
    expect(await outcomeOf({ kind, given })).toEqual(outcome);
    expect(Object.keys(outcome)).toEqual([name.includes('.broken-') ? 'refused' : 'gives']);
  });

  it('come out the same when they are made anew, and none is missing', async () => {
    const made = await vectorFiles();
    expect([...made.keys()].sort()).toEqual(names.sort());
    for (const [name, text] of made) expect(readFileSync(join(vectorsFolder, name), 'utf8'), name).toBe(text);
  });

  it('break every kind of object that has a seal, a signature or a strict form', () => {
    const broken = new Set(names.filter((name) => name.includes('.broken-')).map((name) => read(name).kind));
    const unbroken = new Set(names.map((name) => read(name).kind).filter((kind) => !broken.has(kind)));
    expect([...unbroken].sort()).toEqual(['block-digest', 'derive', 'public-key']);
  });

  it('are told in the README, kind by kind and code by code', () => {
    const readme = readFileSync(join(vectorsFolder, 'README.md'), 'utf8');
    for (const name of names) {
      const { kind, refused } = read(name);
      expect(readme).toContain(`| \`${kind}\` |`);
      if (refused !== undefined) expect(readme).toContain(`| \`${refused.code}\` |`);
    }
  });
});

describe('the worked example of docs/format.md', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/format.md'), 'utf8');
  const [, example = ''] = page.split('### 10.1');

  it('shows the bytes of the vector that it names, all of them and in order', () => {
    const table = example.split('```')[1] ?? '';
    // Each line: hex digits, perhaps in groups, then two spaces or more and what they are.
    const shown = table.split('\n').map((line) => line.split('  ')[0]?.replaceAll(' ', '') ?? '');
    expect(shown.join('')).toBe(read('segment-one-block.json').given.bytes);
  });

  it('shows the keys, nonces and bodies that lead to the block', () => {
    const header = Buffer.from(read('segment-one-block.json').given.bytes.slice(0, 192), 'hex');
    using key = dataKey();
    using keys = sealingKeys(key, context, 'failkit/v1/segment', header);
    const [opened] = read('segment-one-block.json').gives.records;
    const digest = toHex(blockDigest(filled(32, 0x09), Buffer.from(opened.body, 'hex')));
    const nonces = [0, 0xffffffff].map((record) => recordNonce(keys.baseNonce, record));
    expect(opened.digests).toBe(digest);
    for (const shown of [sha256(header), keys.key, keys.commitment, ...nonces].map(toHex))
      expect(example).toContain(shown);
    for (const shown of [opened.body, digest]) expect(example).toContain(shown);
  });
});
