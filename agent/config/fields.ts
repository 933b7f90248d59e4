import * as z from 'zod';
import { Secret } from '../../crypto/redacted.ts';
import { isReference, looksLikeReference, type References, reference } from './references.ts';

/** Control, format and unassigned characters: what would not show, or would garble a terminal or a log. */
const unprintable = /\p{C}/u;
const notWebAddress = 'must be an http:// or https:// address';
const referenceHelp = `write a reference instead: \${env:NAME} or \${file:/path}`;

/** A text that is shown as it is: no reference, nothing unprintable, no blank at either end. */
export function text(lengthMax: number) {
  return z
    .string()
    .min(1)
    .max(lengthMax)
    .refine((value) => !looksLikeReference(value), 'references work for secrets only: write the value itself')
    .refine((value) => !unprintable.test(value), 'must hold printable characters only')
    .refine((value) => value.trim() === value, 'must not begin or end with a blank');
}

/** Absolute afterwards; a relative path counts from the configuration file's folder. */
export function path(references: References) {
  return text(4096).transform((value) => references.path(value));
}

/** A web address without a password in it, and without a slash at its end. */
export function webAddress() {
  return text(2048)
    .refine(isWebAddress, notWebAddress)
    .refine((value) => !hasPassword(value), 'must not hold a user name or password')
    .transform((value) => value.replace(/\/+$/, ''));
}

/** A `Secret`. In the file only a reference is accepted, so that nobody finds the secret by reading the file. */
export function secret(references: References) {
  return z
    .string()
    .regex(reference, { error: `is a secret and must not stand in this file: ${referenceHelp}`, abort: true })
    .transform((value, context) => resolveSecret(references, value, context) ?? z.NEVER);
}

/** No secret by itself, but often kept beside one: the text itself or a reference to it. */
export function textOrReference(references: References) {
  return z
    .string()
    .min(1)
    .max(4096)
    .refine((value) => isReference(value) || !looksLikeReference(value), {
      error: 'is a reference in part only: write one reference, or the text itself',
      abort: true,
    })
    .transform((value, context) => {
      if (!isReference(value)) return value;
      return resolveSecret(references, value, context)?.reveal() ?? z.NEVER;
    });
}

/** An address that may need a password: then only as a reference, so it is a `Secret` in either case. */
export function proxyAddress(references: References) {
  return z
    .string()
    .min(1)
    .refine((value) => isReference(value) || !hasPassword(value), {
      error: `holds a password, which must not stand in this file: ${referenceHelp} with the whole address`,
      abort: true,
    })
    .transform((value, context) => {
      const address = isReference(value) ? resolveSecret(references, value, context) : new Secret(value);
      if (address === null) return z.NEVER;
      if (!isWebAddress(address.reveal())) context.addIssue({ code: 'custom', message: notWebAddress });
      return address;
    });
}

function resolveSecret(references: References, value: string, context: z.RefinementCtx): Secret | null {
  const resolved = references.secret(value);
  if ('secret' in resolved) return resolved.secret;
  context.addIssue({ code: 'custom', message: resolved.problem });
  return null;
}

function isWebAddress(value: string): boolean {
  return /^https?:\/\//i.test(value) && URL.canParse(value);
}

function hasPassword(value: string): boolean {
  const address = URL.parse(value);
  return address !== null && (address.username !== '' || address.password !== '');
}
