/** Bytes of a conversation, altered where it hurts. */
import fc from 'fast-check';

export type Spoil =
  | { readonly how: 'set'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly how: 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly how: 'delete'; readonly at: number; readonly length: number }
  | { readonly how: 'repeat'; readonly at: number; readonly length: number }
  | { readonly how: 'cut'; readonly at: number };

/** Places near the seams of the transcript are the interesting ones. */
export function spoilOf(seams: readonly number[], length: number): fc.Arbitrary<Spoil> {
  const nearSeam = fc
    .tuple(fc.constantFrom(...seams), fc.nat(31))
    .map(([seam, more]) => Math.min(seam + more, length - 1));
  const at = fc.oneof({ weight: 4, arbitrary: nearSeam }, { weight: 1, arbitrary: fc.nat(length - 1) });
  const loud = fc.constantFrom(
    ...['ffffffff', '00000000', '7fffffff', '80000000', '00000001', 'ffff', '00'].map(fromHex),
  );
  const bytes = fc.oneof(loud, fc.uint8Array({ minLength: 1, maxLength: 12 }));
  const run = fc.integer({ min: 1, max: 40 });
  return fc.oneof(
    { weight: 5, arbitrary: fc.record({ how: fc.constant('set' as const), at, bytes }) },
    fc.record({ how: fc.constant('insert' as const), at, bytes }),
    fc.record({ how: fc.constant('delete' as const), at, length: run }),
    fc.record({ how: fc.constant('repeat' as const), at, length: run }),
    fc.record({ how: fc.constant('cut' as const), at }),
  );
}

export function spoiled(bytes: Buffer, spoils: readonly Spoil[]): Buffer {
  let spoiltBytes = Buffer.from(bytes);
  for (const spoil of spoils) {
    const [head, rest] = [spoiltBytes.subarray(0, spoil.at), spoiltBytes.subarray(spoil.at)];
    if (spoil.how === 'cut') spoiltBytes = head;
    else if (spoil.how === 'delete') spoiltBytes = Buffer.concat([head, rest.subarray(spoil.length)]);
    else if (spoil.how === 'repeat') spoiltBytes = Buffer.concat([head, rest.subarray(0, spoil.length), rest]);
    else if (spoil.how === 'insert') spoiltBytes = Buffer.concat([head, spoil.bytes, rest]);
    else spoiltBytes = Buffer.concat([head, spoil.bytes, rest.subarray(spoil.bytes.length)]);
  }
  return spoiltBytes;
}

function fromHex(hex: string): Uint8Array {
  return Buffer.from(hex, 'hex');
}
