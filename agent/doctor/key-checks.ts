import { randomBytes } from 'node:crypto';
import type { DataKey } from '../../crypto/data-key.ts';
import { KeyRefused } from '../../crypto/errors.ts';
import type { KeyContext, KeyProvider, WrappedKey } from '../../crypto/key-provider.ts';
import { recoveryWrapper } from '../../crypto/recovery-key.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import type { Config } from '../config/config-schema.ts';
import { type Checked, doubtful, good, type Verdict } from './finding.ts';

/** Whether who keeps the key does what this host needs of it, and no more. */

/** What was generated for a try, and under what. */
export interface TriedKey {
  readonly wrapped: WrappedKey;
  readonly context: KeyContext;
}

/** With the context that a run gives: a policy that looks at it is tried, too. */
export async function checkGenerate(
  provider: KeyProvider,
  repo: OpenRepository | null,
  signal: AbortSignal,
): Promise<Checked<TriedKey>> {
  const repositoryId = repo?.repository.repositoryId ?? Uint8Array.from(randomBytes(16));
  const context = { repositoryId, machineId: new Uint8Array(16), epoch: 1 };
  const { key, wrapped } = await provider.generateDataKey(context, signal);
  key[Symbol.dispose]();
  return { verdict: good(`${provider.provider} ${provider.keyId} gives data keys`), value: { wrapped, context } };
}

export async function checkUnwrap(
  provider: KeyProvider,
  { wrapped, context }: TriedKey,
  config: Config,
  signal: AbortSignal,
): Promise<Verdict> {
  if (config.access === 'full') {
    (await provider.unwrap(wrapped, context, signal))[Symbol.dispose]();
    return good('this host may unwrap, as access: full needs it');
  }
  const opened = await unwrapped(provider, wrapped, context, signal);
  if (opened === null) return good('this host may not unwrap, as access: write-only wants it');
  opened[Symbol.dispose]();
  return config.keys.provider === 'local-key'
    ? doubtful(
        'access is write-only, but the key file on this host opens what it wraps',
        'use a KMS, or set access to full and know that this host can read its replicas',
      )
    : doubtful(
        'access is write-only, but this host may unwrap: stolen credentials would open its replicas',
        'take the permission to decrypt away from it (kms:Decrypt of AWS; other key services have a page of their own)',
      );
}

async function unwrapped(
  provider: KeyProvider,
  wrapped: WrappedKey,
  context: KeyContext,
  signal: AbortSignal,
): Promise<DataKey | null> {
  try {
    return await provider.unwrap(wrapped, context, signal);
  } catch (error) {
    if (error instanceof KeyRefused) return null;
    throw error;
  }
}

/** A former recovery key still opens older points. */
export function checkRecoveryKey(provider: KeyProvider, { trust }: OpenRepository): Verdict {
  const { keyId } = recoveryWrapper(trust.recoveryPublicKey);
  if (provider.keyId === keyId) return good(`${keyId} is the recovery key of this repository`);
  return doubtful(
    `${provider.keyId} is not the recovery key in force, ${keyId}: newer points do not open with it`,
    'use the newest recovery kit',
  );
}
