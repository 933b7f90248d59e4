import * as z from 'zod';
import { configSchema } from './config-schema.ts';
import type { References } from './references.ts';

export type JsonSchema = z.core.JSONSchema.BaseSchema;

/** The JSON schema of the configuration file, for editors and for other tools: what people write, not what loadConfig returns. */
export function publishedSchema(): JsonSchema {
  const { $schema, ...rest } = z.toJSONSchema(configSchema(noReferences), { io: 'input', target: 'draft-2020-12' });
  return {
    ...($schema === undefined ? {} : { $schema }),
    title: 'Failkit agent configuration',
    description: `Checked by "failkit config check". Secrets are given by reference: \${env:NAME} or \${file:/path}.`,
    ...rest,
  };
}

/** The text of config.schema.json. */
export function publishedSchemaText(): string {
  return `${JSON.stringify(publishedSchema(), null, 2)}\n`;
}

/** A schema describes what is written; nothing is ever resolved through it. */
const noReferences: References = {
  path: (text) => text,
  secret: () => ({ problem: 'not resolved here' }),
};
