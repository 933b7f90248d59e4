import { expect } from 'vitest';
import { CommitmentMismatch, RecordTampered, SignatureInvalid } from '../../crypto/errors.ts';
import { FormatInvalid } from '../../replica/encoding.ts';
import { SegmentMisplaced } from '../../replica/segment.ts';

/** All small ways to hurt an object, and what may come of reading it then. */

export interface Damage {
  readonly what: string;
  readonly bytes: Uint8Array;
}

/** Every single bit flipped, every length cut, some bytes added, one byte removed or doubled anywhere. */
export function* everyDamage(bytes: Uint8Array): Generator<Damage> {
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Uint8Array.from(bytes);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    yield { what: `bit ${bit & 7} of byte ${bit >> 3} flipped`, bytes: flipped };
  }
  for (let at = 0; at < bytes.length; at++) {
    yield { what: `cut to ${at} bytes`, bytes: bytes.slice(0, at) };
    yield { what: `byte ${at} removed`, bytes: joined(bytes.slice(0, at), bytes.slice(at + 1)) };
    yield { what: `a zero byte before byte ${at}`, bytes: joined(bytes.slice(0, at), [0], bytes.slice(at)) };
  }
  for (const tail of [[0], [0xff], [...bytes.slice(-12)], [...bytes]]) {
    yield { what: `${tail.length} bytes added`, bytes: joined(bytes, tail) };
  }
}

/** A huge number where any byte was: whatever count or length stood there now lies. */
export function* everyLie(bytes: Uint8Array): Generator<Damage> {
  const lies = [2 ** 53 - 1, 2 ** 32, 2 ** 31, 2 ** 24].map((value) => ({ value, varint: varint(value) }));
  for (let at = 0; at < bytes.length; at++) {
    for (const { value, varint: lie } of lies) {
      yield { what: `${value} in place of byte ${at}`, bytes: joined(bytes.slice(0, at), lie, bytes.slice(at + 1)) };
    }
    const overwritten = Uint8Array.from(bytes).fill(0xff, at, at + 4);
    if (Buffer.compare(overwritten, bytes) !== 0)
      yield { what: `bytes ${at} to ${at + 3} all ones`, bytes: overwritten };
  }
}

export function joined(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function varint(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value % 0x80) | 0x80, ...varint(Math.floor(value / 0x80))];
}

/** Fails if `read` succeeds, or throws anything that does not say what is wrong with which object. Returns the code. */
export function refusal(read: () => unknown, what: string): string {
  const error = thrownBy(read);
  if (error === null) return expect.fail(`${what}: was read as if nothing had happened`);
  return codeOf(error, what);
}

/** As `refusal`, but another value is fine where it is canonical: `encode` must give these very bytes again. */
function refusalOrCanonical<T>(damage: Damage, read: (bytes: Uint8Array) => T, encode: (value: T) => Uint8Array): void {
  let value: T;
  try {
    value = read(damage.bytes);
  } catch (error) {
    codeOf(error, damage.what);
    return;
  }
  expect(Buffer.from(encode(value)).toString('hex'), damage.what).toBe(Buffer.from(damage.bytes).toString('hex'));
}

/** Hurt content either fails by name, or is another canonical encoding: it is the seal or the signature that tells. */
export function expectStrict<T>(
  whole: Uint8Array,
  read: (bytes: Uint8Array) => T,
  encode: (value: T) => Uint8Array,
): void {
  for (const damage of everyDamage(whole)) refusalOrCanonical(damage, read, encode);
  for (const damage of everyLie(whole)) refusalOrCanonical(damage, read, encode);
}

function thrownBy(read: () => unknown): unknown {
  try {
    read();
  } catch (error) {
    return error;
  }
  return null;
}

function codeOf(error: unknown, what: string): string {
  if (error instanceof FormatInvalid) {
    expect(error.object, what).not.toBe('');
    expect(Number.isSafeInteger(error.offset) && error.offset >= 0, `${what}: ${error.message}`).toBe(true);
    return error.code;
  }
  const named = [SignatureInvalid, CommitmentMismatch, RecordTampered, SegmentMisplaced];
  for (const kind of named) if (error instanceof kind) return error.code;
  throw new Error(`${what}: threw ${String(error)}, which names nothing`, { cause: error });
}
