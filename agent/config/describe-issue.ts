import type * as z from 'zod';
import { knownKeysAt } from './known-keys.ts';
import { nearestKey } from './nearest-key.ts';

export interface DescribedIssue {
  readonly path: readonly PropertyKey[];
  /** The issue is about the key at the end of the path rather than its value. */
  readonly aboutKey: boolean;
  readonly what: string;
}

type Issue = z.core.$ZodIssue;

const kinds: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a group of keys',
  array: 'a list (each item on its own line, after a dash)',
};

/** Says in an operator's words what zod found. Values are never shown: one might be a secret in the wrong place. */
export function describeIssue(issue: Issue, document: unknown): readonly DescribedIssue[] {
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({
      path: [...issue.path, key],
      aboutKey: true,
      what: unknownKey(key, knownKeysAt(issue.path, document)),
    }));
  return [{ path: issue.path, aboutKey: false, what: describeValue(issue, document) }];
}

function describeValue(issue: Issue, document: unknown): string {
  const value = valueAt(document, issue.path);
  if (value === undefined) return `is missing${wanted(issue)}`;
  if (value === null) return `is empty: give it a value${wanted(issue)} or remove the key`;
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${kinds[issue.expected] ?? issue.expected}${butIs(value, issue.expected)}`;
    case 'invalid_value':
    case 'invalid_union':
      return oneOf(optionsOf(issue), value);
    case 'too_small':
      return tooSmall(issue);
    case 'too_big':
      return `must ${amount(issue.origin)} at most ${issue.maximum}${unit(issue.origin)}`;
    default:
      return issue.message;
  }
}

function unknownKey(key: string, known: readonly string[]): string {
  const near = nearestKey(key, known);
  return near === null
    ? `unknown key: known here are ${known.join(', ')}`
    : `unknown key \`${key}\`: did you mean \`${near}\`?`;
}

function wanted(issue: Issue): string {
  if (issue.code === 'invalid_type' && issue.expected !== 'object')
    return `: it must be ${kinds[issue.expected] ?? issue.expected}`;
  const options = optionsOf(issue);
  return options.length === 0 ? '' : `: one of ${options.join(', ')}`;
}

function optionsOf(issue: Issue): readonly string[] {
  if (issue.code === 'invalid_value') return issue.values.map(String);
  if (issue.code === 'invalid_union' && 'options' in issue && Array.isArray(issue.options))
    return issue.options.map(String);
  return [];
}

function oneOf(options: readonly string[], value: unknown): string {
  const near = typeof value === 'string' ? nearestKey(value, options) : null;
  return `must be one of ${options.join(', ')}${near === null ? '' : `: did you mean ${near}?`}`;
}

function tooSmall(issue: z.core.$ZodIssueTooSmall): string {
  if (issue.origin === 'number')
    return `must be ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}`;
  if (Number(issue.minimum) === 1) return 'must not be empty';
  return `must ${amount(issue.origin)} at least ${issue.minimum}${unit(issue.origin)}`;
}

function amount(origin: string): string {
  return origin === 'string' || origin === 'array' ? 'have' : 'be';
}

function unit(origin: string): string {
  if (origin === 'string') return ' characters';
  return origin === 'array' ? ' items' : '';
}

function valueAt(document: unknown, path: readonly PropertyKey[]): unknown {
  let value = document;
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Reflect.get(value, step);
  }
  return value;
}

/** `not a text`; nothing for a number that only is not whole. */
function butIs(value: unknown, expected: string): string {
  return expected === 'int' && typeof value === 'number' ? '' : `, not ${kindOf(value)}`;
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  return kinds[typeof value] ?? typeof value;
}
