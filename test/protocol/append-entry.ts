import type { SigningKey } from '../../crypto/signing.ts';
import type { Chain } from '../../replica/chain.ts';
import type { EntryBody } from '../../replica/chain-entry.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { writeEntry } from '../../replica/write-entry.ts';

/** Entries that belong to no tenure of their own: `prune` and `lock`. */

const never = new AbortController().signal;

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
