import { type Chain, type ChainHead, checkKnownHead, ReplicaRolledBack, readEntry } from '../../replica/chain.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { checkKnownTrust, type OpenRepository } from '../../replica/open-repository.ts';
import { Fenced } from '../../replica/put-once.ts';
import type { MachineState } from '../state/machine-state.ts';

/** Whether this agent may go on writing a machine's chain, by what it remembers of it. */

/** Only the owner of the tenure writes these. */
const ownerTypes: ReadonlySet<string> = new Set(['begin', 'publish', 'rekey']);

/** The replica exists, and this host has never written to it. */
export class TakeOverNeeded extends Error {
  readonly code = 'TAKE_OVER_NEEDED';
  override readonly name = 'TakeOverNeeded';
}

/**
 * Throws TrustBroken, ReplicaRolledBack or ReplicaForked when the store shows less or other than what is remembered; Fenced when another agent
 * has written since, TakeOverNeeded when this host never has. `takeOver` is the operator's word that this is meant.
 */
export async function checkOwnership(
  repo: OpenRepository,
  chain: Chain | null,
  state: MachineState,
  takeOver: boolean,
  signal: AbortSignal,
): Promise<void> {
  if (state.trust !== null) await checkKnownTrust(repo, state.trust, signal);
  state.setTrust(repo.trust);
  const known = await settlePending(repo, chain, state, signal);
  if (chain === null) {
    if (known === null) return;
    throw new ReplicaRolledBack(
      `this host remembers entry ${known.seq} of a chain that is not in ${repo.target.description}: it was removed, or this is another bucket`,
    );
  }
  if (known !== null) await checkKnownHead(repo, chain, known, signal);
  if (takeOver) {
    forgetOtherCache(chain, state);
    return;
  }
  if (known === null) {
    throw new TakeOverNeeded(
      `a replica of this machine exists (newest entry ${chain.head.seq}), and this host has never written to it: run with --take-over if this host is to protect the machine from now on`,
    );
  }
  // The entries read may begin after the one in question, but the state tells of all of them.
  const { tenure, newestPoint } = chain.state;
  if (tenure <= known.seq && (newestPoint?.seq ?? 0) <= known.seq) return;
  const foreign = chain.recent.find(({ seq, isVoid, body }) => seq > known.seq && !isVoid && ownerTypes.has(body.type));
  const who = foreign === undefined ? 'another agent' : `agent ${toHex(foreign.signerKeyId)}`;
  const when = foreign === undefined ? '' : ` with entry ${foreign.seq} at ${new Date(foreign.timeMs).toISOString()}`;
  throw new Fenced(
    `${who} took this machine over${when}: this agent is fenced. Run with --take-over only if this host is to protect the machine`,
  );
}

/** What another agent made in the meantime is not what is kept here, its keys among it: all of it is fetched or made anew. */
function forgetOtherCache(chain: Chain, state: MachineState): void {
  const { newestPoint } = chain.state;
  if (newestPoint !== null && state.manifest(newestPoint.digest) === null) state.clearCache();
}

/** An entry whose answer was lost may exist after all: then it is ours, and what was staged with it counts. */
async function settlePending(
  repo: OpenRepository,
  chain: Chain | null,
  state: MachineState,
  signal: AbortSignal,
): Promise<ChainHead | null> {
  for (const pending of state.pendingHeads.toReversed()) {
    if (chain === null || pending.seq > chain.head.seq) continue;
    const stored =
      chain.recent.find(({ seq }) => seq === pending.seq) ??
      (await readEntry(repo, chain.machineId, pending.seq, signal));
    if (!sameBytes(stored.digest, pending.digest)) continue;
    if (stored.body.type === 'publish') state.settlePoint([]);
    state.setHead(pending);
    return pending;
  }
  return state.head;
}
