import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { publishedSchema, publishedSchemaText } from '../../../agent/config/published-schema.ts';

it('config.schema.json is what `npm run schema` writes', async () => {
  const published = await readFile(new URL('../../../config.schema.json', import.meta.url), 'utf8');
  expect(published, 'run `npm run schema` and commit the result').toBe(publishedSchemaText());
});

it('the schema asks for references where secrets are', () => {
  const text = publishedSchemaText();
  expect(text).toContain(String.raw`"pattern": "^\\$\\{(env|file):([^{}]+)\\}$"`);
  expect(publishedSchema().required).toEqual(['repository', 'keys']);
});
