import { keyIdOf, type SigningKey } from '../../crypto/signing.ts';
import type { Chain } from '../../replica/chain.ts';
import type { EntryBody } from '../../replica/chain-entry.ts';
import type { EntryEffect } from '../../replica/chain-state.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { writeEntry } from '../../replica/write-entry.ts';

/** Entries that belong to no tenure of their own: `prune` and `lock`. */

const never = new AbortController().signal;

export function effectOf({ machineId, head, state }: Chain, body: EntryBody, key: SigningKey): EntryEffect {
  const signer = { signerKeyId: keyIdOf(key.publicKey), isVoid: false };
  return { machineId, seq: head.seq + 1, tenure: state.tenure, timeMs: 1, body, ...signer };
}

/** After the head that was read, or not at all (false). Uses `chain` up: its state is then the one after the entry. */
export async function appendEntry(
  repo: OpenRepository,
  chain: Chain,
  body: EntryBody,
  key: SigningKey,
): Promise<boolean> {
  const writer = { agent: key, timeMs: 1, announce: () => undefined };
  return (await writeEntry(repo, chain, { body, births: [], deaths: [] }, writer, never)) !== null;
}
