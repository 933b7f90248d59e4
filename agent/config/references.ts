import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Secret } from '../../crypto/redacted.ts';
import type { Environment } from './environment.ts';

/** A secret file holds a password or a token; a wrong path must not be read whole. */
const secretFileBytesMax = 64 * 1024;
const groupAndWorld = 0o077;
/** The whole text is one reference: `${env:NAME}` or `${file:/path}`. */
export const reference = /^\$\{(env|file):([^{}]+)\}$/;

/** What `${env:NAME}` or `${file:/path}` stands for, or why it can't be had. */
export type Resolved = { readonly secret: Secret } | { readonly problem: string };

/** Resolves what a configuration refers to outside of itself. */
export interface References {
  /** An absolute path; a relative one counts from the configuration file's folder. */
  path(text: string): string;
  secret(text: string): Resolved;
}

export function looksLikeReference(text: string): boolean {
  return /\$\{(env|file):/.test(text);
}

export function isReference(text: string): boolean {
  return reference.test(text);
}

export function referencesFrom(folder: string, environment: Environment): References {
  const path = (text: string) => resolve(folder, text);
  return {
    path,
    secret: (text) => {
      const [, kind, name = ''] = reference.exec(text) ?? [];
      if (kind === undefined) return { problem: 'is not a reference' };
      return kind === 'env' ? fromEnvironment(name, environment) : fromFile(path(name));
    },
  };
}

function fromEnvironment(name: string, environment: Environment): Resolved {
  const value = environment[name];
  if (value !== undefined && value !== '') return { secret: new Secret(value) };
  return { problem: `environment variable ${name} is ${value === undefined ? 'not set' : 'empty'}: set it` };
}

function fromFile(path: string): Resolved {
  let descriptor: number;
  try {
    // Without O_NONBLOCK, opening a named pipe would hang until somebody writes to it.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    return { problem: `secret file ${path} ${whyNotOpened(cause)}` };
  }
  try {
    return readSecret(path, descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function readSecret(path: string, descriptor: number): Resolved {
  const stats = fstatSync(descriptor);
  const { mode, size } = stats;
  if (!stats.isFile()) return { problem: `secret file ${path} is not a plain file` };
  if (process.platform !== 'win32' && (mode & groupAndWorld) !== 0)
    return { problem: `secret file ${path} is open to others (mode ${octal(mode)}): run chmod 600 ${path}` };
  if (size > secretFileBytesMax)
    return { problem: `secret file ${path} has ${size} bytes, a secret at most ${secretFileBytesMax}: check the path` };
  const text = readFileSync(descriptor, 'utf8').replace(/\r?\n$/, '');
  return text === '' ? { problem: `secret file ${path} is empty` } : { secret: new Secret(text) };
}

function octal(mode: number): string {
  return (mode & 0o777).toString(8).padStart(4, '0');
}

function whyNotOpened(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
  if (code === 'ENOENT') return 'does not exist: check the path';
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read by this user';
  return `can't be opened (${code})`;
}
