import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataKey, dataKeyBytes } from '../../crypto/data-key.ts';
import { KeyRefused } from '../../crypto/errors.ts';
import type { KeyContext, KeyProvider, WrappedKey } from '../../crypto/key-provider.ts';

/** What every key provider must do. `open` gives two of one kind, over different key encryption keys. */
export interface KeyProviderCase {
  readonly name: string;
  readonly open: () => Promise<{ readonly one: KeyProvider; readonly other: KeyProvider; close?(): Promise<void> }>;
  /** How many byte positions of a blob to alter; a KMS across a socket gets a sample, spread over the whole blob. */
  readonly alteredBytesMax: number;
}

export const sampleContext: KeyContext = {
  repositoryId: new Uint8Array(16).fill(0x11),
  machineId: new Uint8Array(16).fill(0x22),
  epoch: 7,
};
const never = new AbortController().signal;

export function keyProviderContract({ name, open, alteredBytesMax }: KeyProviderCase): void {
  describe(`key provider contract: ${name}`, () => {
    let opened: Awaited<ReturnType<typeof open>>;
    let one: KeyProvider;
    let made: { readonly key: DataKey; readonly wrapped: WrappedKey };

    beforeAll(async () => {
      opened = await open();
      one = opened.one;
      made = await one.generateDataKey(sampleContext, never);
    });
    afterAll(async () => {
      made?.key[Symbol.dispose]();
      await opened?.close?.();
    });

    const refused = async (wrapped: WrappedKey, context: KeyContext = sampleContext, by: KeyProvider = one) => {
      await expect(by.unwrap(wrapped, context, never)).rejects.toBeInstanceOf(KeyRefused);
    };

    it('unwraps the data key that it generated', async () => {
      using again = await one.unwrap(made.wrapped, sampleContext, never);
      expect(again.bytes).toEqual(new Uint8Array(made.key.bytes));
      expect(again.bytes).toHaveLength(dataKeyBytes);
    });

    it('unwraps a data key made elsewhere', async () => {
      using key = DataKey.generate();
      const wrapped = await one.wrap(key, sampleContext, never);
      using again = await one.unwrap(wrapped, sampleContext, never);
      expect(Buffer.from(again.bytes).equals(key.bytes)).toBe(true);
    });

    it('names itself and its key in every wrap', async () => {
      const wrapped = await one.wrap(made.key, sampleContext, never);
      expect([made.wrapped.provider, wrapped.provider]).toEqual([one.provider, one.provider]);
      expect(wrapped.keyId).toBe(made.wrapped.keyId);
      expect(wrapped.keyId).not.toBe('');
    });

    it('generates another key each time, and wraps one key into another blob each time', async () => {
      const again = await one.generateDataKey(sampleContext, never);
      using key = again.key;
      expect(Buffer.from(key.bytes).equals(made.key.bytes)).toBe(false);
      const wrapped = await one.wrap(made.key, sampleContext, never);
      expect(Buffer.from(wrapped.blob).equals(made.wrapped.blob)).toBe(false);
    });

    it('never shows the key in the wrap', async () => {
      expect(Buffer.from(made.wrapped.blob).includes(Buffer.from(made.key.bytes))).toBe(false);
    });

    it('leaves the data key that it wraps alive and unchanged', async () => {
      using key = DataKey.generate();
      const before = Buffer.from(key.bytes);
      await one.wrap(key, sampleContext, never);
      expect(before.equals(key.bytes)).toBe(true);
    });

    it.each([
      ['repository', { repositoryId: new Uint8Array(16).fill(0x12) }],
      ['machine', { machineId: new Uint8Array(16).fill(0x23) }],
      ['epoch', { epoch: 8 }],
      ['swapped ids', { repositoryId: sampleContext.machineId, machineId: sampleContext.repositoryId }],
    ])('refuses a wrap made for another %s', async (_, change) => {
      await refused(made.wrapped, { ...sampleContext, ...change });
    });

    it('refuses a wrap made under another key', async () => {
      await refused(made.wrapped, sampleContext, opened.other);
      const { key, wrapped } = await opened.other.generateDataKey(sampleContext, never);
      key[Symbol.dispose]();
      await refused({ ...wrapped, keyId: made.wrapped.keyId });
    });

    it('refuses a blob with any byte altered', { timeout: 120_000 }, async () => {
      const { blob } = made.wrapped;
      const step = Math.max(1, Math.ceil(blob.length / alteredBytesMax));
      for (let at = 0; at < blob.length; at += step) {
        const altered = Uint8Array.from(blob, (byte, index) => (index === at ? byte ^ (1 << (at % 8)) : byte));
        await refused({ ...made.wrapped, blob: altered });
      }
    });

    it('refuses a blob that was cut, lengthened or emptied', async () => {
      const { blob } = made.wrapped;
      for (const length of [0, 1, 13, 29, blob.length - 16, blob.length - 1])
        await refused({ ...made.wrapped, blob: blob.slice(0, length) });
      await refused({ ...made.wrapped, blob: Uint8Array.from([...blob, 0]) });
    });

    it('refuses a wrap of another provider', async () => {
      await refused({ ...made.wrapped, provider: 'another-provider' });
    });

    it('does nothing once cancelled, and passes the reason through', async () => {
      const reason = new Error('the operator pressed Ctrl-C');
      const cancelled = AbortSignal.abort(reason);
      await expect(one.generateDataKey(sampleContext, cancelled)).rejects.toBe(reason);
      await expect(one.wrap(made.key, sampleContext, cancelled)).rejects.toBe(reason);
      await expect(one.unwrap(made.wrapped, sampleContext, cancelled)).rejects.toBe(reason);
    });

    it('hands out data keys that are zeroed when disposed', async () => {
      const key = await one.unwrap(made.wrapped, sampleContext, never);
      const live = key.bytes;
      expect(live.some((byte) => byte !== 0)).toBe(true);
      key[Symbol.dispose]();
      expect(live.every((byte) => byte === 0)).toBe(true);
      expect(() => key.bytes).toThrow('zeroed');
    });

    it('refuses to wrap a data key that was disposed', async () => {
      const key = DataKey.generate();
      key[Symbol.dispose]();
      await expect(one.wrap(key, sampleContext, never)).rejects.toThrow('zeroed');
    });

    it('takes no malformed context', async () => {
      const short = { ...sampleContext, machineId: new Uint8Array(15) };
      await expect(one.generateDataKey(short, never)).rejects.toBeInstanceOf(RangeError);
      await expect(one.wrap(made.key, { ...sampleContext, epoch: 2 ** 32 }, never)).rejects.toBeInstanceOf(RangeError);
      await expect(one.unwrap(made.wrapped, { ...sampleContext, epoch: -1 }, never)).rejects.toBeInstanceOf(RangeError);
    });
  });
}
