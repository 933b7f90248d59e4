import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../agent/config/load-config.ts';
import { type JsonSchema, publishedSchema } from '../../agent/config/published-schema.ts';
import { codeBlocks, operatorDocuments, tableRows, textOf } from './documents.ts';

const reference = await textOf('docs/operations/configuration.md');

describe('the configuration reference', () => {
  it('names every key that there is, and no other', () => {
    expect([...documentedDefaults().keys()].sort()).toEqual([...schemaDefaults().keys()].sort());
  });

  it('gives the defaults that are in force', () => {
    expect(Object.fromEntries(documentedDefaults())).toEqual(Object.fromEntries(schemaDefaults()));
  });
});

describe('every configuration in the documents', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-docs-'));
    for (const name of ['s3-secret', 'gcs-key', 'vcenter-password', 'vault-secret-id', 'hsm-pin', 'hyperv-key'])
      await writeFile(join(folder, name), 'not-a-secret\n', { mode: 0o600 });
  });
  afterAll(async () => {
    await rm(folder, { recursive: true });
  });

  it('is valid', async () => {
    let count = 0;
    for (const document of await operatorDocuments())
      for (const block of codeBlocks(await textOf(document), 'yaml')) {
        const file = join(folder, `${++count}.yaml`);
        await writeFile(
          file,
          block.replaceAll(
            /\/etc\/failkit\/(s3-secret|gcs-key|vcenter-password|vault-secret-id|hsm-pin|hyperv-key)/g,
            join(folder, '$1'),
          ),
        );
        expect(() => loadConfig(file, { S3_ACCESS_KEY: 'a-key-id' }), `${document}\n${block}`).not.toThrow();
      }
    expect(count).toBeGreaterThan(3);
  });
});

/** `required`, `empty`, or the default as JSON, by key. */
function documentedDefaults(): Map<string, string> {
  const rows = tableRows(reference).filter(([key = '']) => /^`[a-zA-Z0-9.[\]]+`$/.test(key));
  return new Map(
    rows.map(([key = '', value = '']) => [key.slice(1, -1), value.replaceAll('`', '').replaceAll('"', '')]),
  );
}

function schemaDefaults(): Map<string, string> {
  const found = new Map<string, string>();
  collect(publishedSchema(), '', found);
  return found;
}

/** `given`: what the parent's own default says of its keys. */
function collect(schema: JsonSchema, path: string, found: Map<string, string>, given: object = {}): void {
  for (const variant of variantsOf(schema)) {
    const required = new Set(variant.required ?? []);
    for (const [key, property] of Object.entries(variant.properties ?? {})) {
      if (typeof property === 'boolean') continue;
      const at = path === '' ? key : `${path}.${key}`;
      const inner = itemsOf(property);
      const below = inner === null ? [property] : [inner];
      const leaf = inner === null ? at : `${at}[]`;
      if (below.some((each) => variantsOf(each).some(({ properties }) => properties !== undefined)))
        for (const each of below) collect(each, leaf, found, objectOf(property.default));
      else if (key in given) found.set(leaf, String(Reflect.get(given, key)));
      else keep(found, leaf, defaultOf(property, required.has(key) && inner === null));
    }
  }
}

/** A key that several variants have is documented as the strictest of them. */
function keep(found: Map<string, string>, key: string, value: string): void {
  const before = found.get(key);
  if (before === undefined || value === 'required') found.set(key, value);
}

function objectOf(value: unknown): object {
  return typeof value === 'object' && value !== null ? value : {};
}

function defaultOf(property: JsonSchema, required: boolean): string {
  if (required) return 'required';
  if (property.default === undefined) return 'empty';
  return typeof property.default === 'string' ? property.default : JSON.stringify(property.default);
}

function variantsOf(schema: JsonSchema): readonly JsonSchema[] {
  const variants = [...(schema.oneOf ?? []), ...(schema.anyOf ?? [])].filter((each) => typeof each !== 'boolean');
  return variants.length === 0 ? [schema] : variants.flatMap(variantsOf);
}

function itemsOf({ items }: JsonSchema): JsonSchema | null {
  return typeof items === 'object' && !Array.isArray(items) ? items : null;
}
