import { writeFileSync } from 'node:fs';
import { publishedSchemaText } from './published-schema.ts';

/** `npm run schema`: writes config.schema.json at the root of the repository. */
writeFileSync(new URL('../../config.schema.json', import.meta.url), publishedSchemaText());
