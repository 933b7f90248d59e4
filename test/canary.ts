/**
 * Known secrets for the tests, and the check that none of them is ever printed. Whoever needs a password or a key in a
 * test takes it from here; whatever a test process prints is recorded and searched when all tests are done.
 */
import { createHash, randomBytes } from 'node:crypto';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folderVariable = 'FAILKIT_CANARY_FOLDER';
const seedVariable = 'FAILKIT_CANARY_SEED';
const inheritedFolder = process.env[folderVariable];

export interface Canaries {
  readonly password: string;
  /** Shaped like an S3 secret access key: 40 characters. */
  readonly secretAccessKey: string;
  readonly token: string;
  /** 32 bytes, for use as a data key or a key encryption key. */
  readonly keyBytes: Uint8Array;
  /** 64 bytes of disk content that must never be seen outside the disk and the restore. */
  readonly plaintext: Uint8Array;
}

/** The same in every process of a test run, different in the next run. */
export function canaries(): Canaries {
  return canariesFrom(process.env[seedVariable] ?? '');
}

export function canariesFrom(seed: string): Canaries {
  if (seed === '') throw new Error(`${seedVariable} is not set: run the tests through vitest with vitest.config.ts`);
  return {
    password: `Pw-${derive(seed, 'password').toString('hex').slice(0, 24)}`,
    secretAccessKey: derive(seed, 'secret access key').toString('hex').slice(0, 40),
    token: `token-${derive(seed, 'token').toString('hex').slice(0, 32)}`,
    keyBytes: new Uint8Array(derive(seed, 'key').subarray(0, 32)),
    plaintext: new Uint8Array(derive(seed, 'plaintext')),
  };
}

/** For output that no test process printed itself: a child's stdout and stderr, a log file, a recorded request. */
export function recordOutput(text: string | Uint8Array): void {
  const folder = process.env[folderVariable];
  if (folder === undefined) throw new Error(`${folderVariable} is not set: run the tests through vitest.config.ts`);
  appendFileSync(join(folder, `printed-${process.pid}.log`), text);
}

/** Makes the folder and the secrets of this test run, unless a parent process did; child processes inherit both. */
export function openCanaryFolder(): string {
  const inherited = process.env[folderVariable];
  if (inherited !== undefined) return inherited;
  const folder = mkdtempSync(join(tmpdir(), 'failkit-printed-'));
  process.env[folderVariable] = folder;
  process.env[seedVariable] = randomBytes(16).toString('hex');
  return folder;
}

/** One that a parent process made is left to that: it is not done with it. */
export function removeCanaryFolder(folder: string): void {
  if (folder !== inheritedFolder) rmSync(folder, { recursive: true, force: true });
}

/** Which secret was printed, how it was written and in which file; empty when all is well. Names no secret itself. */
export function sweepCanaries(folder: string, secrets: Canaries = canaries()): string[] {
  mkdirSync(folder, { recursive: true });
  const needles = Object.entries(secrets).flatMap(([name, value]) => spellings(name, value));
  return readdirSync(folder).flatMap((file) => {
    const printed = readFileSync(join(folder, file), 'latin1');
    // Node shows bytes in columns and wraps them, so the search ignores white space; no secret here contains any.
    const packed = printed.replace(/\s+/g, '');
    const found = needles.filter(({ text }) => printed.includes(text) || packed.includes(text));
    return found.map(({ name }) => `${name} in ${file}`);
  });
}

interface Needle {
  readonly name: string;
  /** Latin-1: one character for each byte. */
  readonly text: string;
}

const shownBytes = 24;

/** A secret leaks just as well in hex, base64 or a list of numbers; of a long one Node shows only the beginning. */
function spellings(name: string, value: string | Uint8Array): Needle[] {
  const bytes = Buffer.from(value);
  const beginning = bytes.subarray(0, shownBytes);
  const hex = beginning.toString('hex');
  const spelled = [
    { how: 'as it is', text: bytes.toString('latin1') },
    { how: 'in hex', text: hex },
    { how: 'in upper-case hex', text: hex.toUpperCase() },
    { how: 'as numbers', text: [...beginning].join(',') },
    ...[0, 1, 2].flatMap((shift) => base64Spellings(bytes, shift)),
  ];
  return spelled.map(({ how, text }) => ({ name: `${name} ${how}`, text }));
}

/** The characters of a base64 text that do not depend on what stands before and after the secret. */
function base64Spellings(bytes: Buffer, shift: number): { how: string; text: string }[] {
  const encoded = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64');
  const text = encoded.slice(shift === 0 ? 0 : 4, Math.floor((bytes.length + shift) / 3) * 4);
  return [
    { how: 'in base64', text },
    { how: 'in base64url', text: text.replaceAll('+', '-').replaceAll('/', '_') },
  ];
}

function derive(seed: string, name: string): Buffer {
  return createHash('sha512').update(`failkit canary ${seed} ${name}`).digest();
}
