import { randomBytes } from 'node:crypto';
import { keyIdOf, type SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import type { Chain } from '../../replica/chain.ts';
import { type EntryBody, encodeEntry } from '../../replica/chain-entry.ts';
import { type EntryEffect, isSummaryDue } from '../../replica/chain-state.ts';
import { placeControl } from '../../replica/control-object.ts';
import { chainEntryName } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { putOrCompare } from '../../replica/put-once.ts';

/** Entries that belong to no tenure of their own: `prune` and `lock`. */

const never = new AbortController().signal;
const nothing = { births: [], deaths: [] };

export function effectOf({ machineId, head, state }: Chain, body: EntryBody, key: SigningKey): EntryEffect {
  const signer = { signerKeyId: keyIdOf(key.publicKey), isVoid: false };
  return { machineId, seq: head.seq + 1, tenure: state.tenure, timeMs: 1, body, ...signer };
}

/**
 * Rules R1 and R4: after the head that was read, or not at all (false). Uses `chain` up: its state is then the one after
 * the entry.
 */
export async function appendEntry(
  repo: OpenRepository,
  chain: Chain,
  body: EntryBody,
  key: SigningKey,
): Promise<boolean> {
  const place = { ...effectOf(chain, body, key), repositoryId: repo.repository.repositoryId };
  chain.state.apply(place, { ...nothing, summary: null });
  const summary = isSummaryDue(place.seq) ? chain.state.summary() : null;
  const control = await placeControl(repo.target, place, false, { ...nothing, summary }, never);
  const fields = { ...place, previous: chain.head.digest, nonce: randomBytes(16), trust: repo.trust.n, control };
  const bytes = encodeEntry(fields, key);
  return await putOrCompare(repo.target, chainEntryName(chain.machineId, place.seq), bytes, sha256(bytes), never);
}
