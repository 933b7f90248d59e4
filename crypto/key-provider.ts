import type { DataKey } from './data-key.ts';

/**
 * What a wrap is bound to. All opaque ids: a KMS logs its encryption context in clear.
 * As AWS encryption context: `{ app: 'failkit', format: '1', repository, machine, epoch }`, ids as 32 lower-case hex digits, epoch decimal.
 */
export interface KeyContext {
  /** 16 bytes. */
  readonly repositoryId: Uint8Array;
  /** 16 bytes. */
  readonly machineId: Uint8Array;
  readonly epoch: number;
}

/** A data key as the key encryption key's owner returned it. Safe to store anywhere. */
export interface WrappedKey {
  /** Which provider can unwrap it: `local-key`, `aws-kms`, `recovery-key`, … */
  readonly provider: string;
  /** The key encryption key's own name (ARN, fingerprint); shown to operators. */
  readonly keyId: string;
  readonly blob: Uint8Array;
}

/**
 * Someone who keeps a key encryption key. Errors (crypto/errors.ts): KeyRefused: the KMS said no (wrong key, context,
 * permission, disabled, pending deletion). KeyServiceUnavailable: it said nothing, or that it can't now.
 */
export interface KeyProvider {
  /** The value of `WrappedKey.provider`. */
  readonly provider: string;
  /** Key encryption key that new wraps use; shown to operators. */
  readonly keyId: string;
  /** One request at most. */
  generateDataKey(
    context: KeyContext,
    signal: AbortSignal,
  ): Promise<{ readonly key: DataKey; readonly wrapped: WrappedKey }>;
  /** For further wraps of an existing key: recovery, second KMS, rewrapping. */
  wrap(key: DataKey, context: KeyContext, signal: AbortSignal): Promise<WrappedKey>;
  /** Throws KeyRefused for a wrap made under another context or key, or altered. */
  unwrap(wrapped: WrappedKey, context: KeyContext, signal: AbortSignal): Promise<DataKey>;
}
