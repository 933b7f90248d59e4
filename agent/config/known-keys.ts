import { type JsonSchema, publishedSchema } from './published-schema.ts';

type Key = PropertyKey;

/** The keys that may stand at `path` in a document, given what the document says about its variants (`target: s3`). */
export function knownKeysAt(path: readonly Key[], document: unknown): readonly string[] {
  let schemas: readonly JsonSchema[] = [publishedSchema()];
  let value = document;
  for (const step of path) {
    schemas = variantsOf(schemas, value).flatMap((schema) => childOf(schema, step));
    value = childValue(value, step);
  }
  const keys = variantsOf(schemas, value).flatMap((schema) => Object.keys(schema.properties ?? {}));
  return [...new Set(keys)];
}

/** Alternatives that fit the value; a variant whose constant says something else is left out. */
function variantsOf(schemas: readonly JsonSchema[], value: unknown): readonly JsonSchema[] {
  return schemas.flatMap((schema) => {
    const variants = [...(schema.oneOf ?? []), ...(schema.anyOf ?? [])].filter(isSchema);
    return variants.length === 0 ? [schema] : variants.filter((variant) => constantsFit(variant, value));
  });
}

function constantsFit(schema: JsonSchema, value: unknown): boolean {
  return Object.entries(schema.properties ?? {}).every(
    ([key, property]) =>
      !isSchema(property) || property.const === undefined || property.const === childValue(value, key),
  );
}

function childOf(schema: JsonSchema, step: Key): readonly JsonSchema[] {
  if (typeof step === 'number') return [schema.items].flat().filter(isSchema);
  return [schema.properties?.[String(step)]].filter(isSchema);
}

function childValue(value: unknown, step: Key): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, step) : undefined;
}

function isSchema(candidate: unknown): candidate is JsonSchema {
  return typeof candidate === 'object' && candidate !== null;
}
