import { toHex } from '../../replica/encoding.ts';
import { context, filled, machineId, repositoryId } from './specimens.ts';
import type { Given, VectorKind } from './vector-readers.ts';

/** What a vector is, and how one is broken. All inputs are fixed, so that the files come out the same whoever makes them. */

export interface VectorCase {
  readonly name: string;
  readonly about: string;
  /** Of docs/format.md. */
  readonly section: string;
  readonly kind: VectorKind;
  readonly given: Given;
}

export const stuck = filled(32, 0x05);
export const saltKey = filled(32, 0x0a);
export const ids: Given = { repositoryId: toHex(repositoryId), machineId: toHex(machineId) };
export const keyed: Given = { ...ids, epoch: context.epoch, dataKey: '07'.repeat(32) };

/** A case and its broken variants, each with what was done to its bytes. */
export function withBroken(
  good: VectorCase,
  broken: Readonly<Record<string, readonly [string, Given]>>,
): readonly VectorCase[] {
  const variants = Object.entries(broken).map(([name, [about, change]]) => ({
    ...good,
    name: `${good.name}.broken-${name}`,
    about,
    given: { ...good.given, ...change },
  }));
  return [good, ...variants];
}

/** Bytes of a vector with some of them changed, removed or added. */
export function changed(bytes: Uint8Array, at: number, ...values: number[]): Given {
  const copy = Uint8Array.from(bytes);
  copy.set(values, at < 0 ? bytes.length + at : at);
  return { bytes: toHex(copy) };
}
export const flipped = (bytes: Uint8Array, at: number): Given => changed(bytes, at, (bytes.at(at) ?? 0) ^ 1);
export const cut = (bytes: Uint8Array): Given => ({ bytes: toHex(bytes.subarray(0, -1)) });
export const longer = (bytes: Uint8Array): Given => ({ bytes: `${toHex(bytes)}00` });
export const bytesGiven = (bytes: Uint8Array): Given => ({ bytes: toHex(bytes) });
