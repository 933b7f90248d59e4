import { describe, expect, it } from 'vitest';
import { awsEncryptionContext, encodeKeyContext } from '../../crypto/key-context.ts';

const context = {
  repositoryId: Uint8Array.from({ length: 16 }, (_, index) => index),
  machineId: Uint8Array.from({ length: 16 }, (_, index) => 0xf0 + index),
  epoch: 0x01020304,
};

describe('key context', () => {
  it('is encoded as the format says', () => {
    const expected = `${Buffer.from('failkit/v1/key-context').toString('hex')}00000102030405060708090a0b0c0d0e0ff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff01020304`;
    expect(Buffer.from(encodeKeyContext(context)).toString('hex')).toBe(expected);
  });

  it('is a map of opaque ids for AWS', () => {
    expect(awsEncryptionContext(context)).toEqual({
      app: 'failkit',
      format: '1',
      repository: '000102030405060708090a0b0c0d0e0f',
      machine: 'f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff',
      epoch: '16909060',
    });
  });

  it.each([
    ['short repository id', { repositoryId: new Uint8Array(15) }],
    ['long machine id', { machineId: new Uint8Array(17) }],
    ['negative epoch', { epoch: -1 }],
    ['epoch beyond 32 bits', { epoch: 2 ** 32 }],
    ['fractional epoch', { epoch: 1.5 }],
    ['epoch that is no number', { epoch: Number.NaN }],
  ])('refuses a %s', (_, change) => {
    expect(() => encodeKeyContext({ ...context, ...change })).toThrow(RangeError);
    expect(() => awsEncryptionContext({ ...context, ...change })).toThrow(RangeError);
  });
});
