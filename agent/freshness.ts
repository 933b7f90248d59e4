import { type ChainHead, checkKnownHead } from '../replica/chain.ts';
import { sameBytes } from '../replica/encoding.ts';
import type { OpenReplica } from '../restore/open-point.ts';
import { remedyFor } from './remedy.ts';
import type { Session } from './session.ts';
import { StateBusy } from './state/errors.ts';
import { MachineState } from './state/machine-state.ts';

/** Whether a bucket shows the newest entries of a machine: known only where a newer head is known. */

/** A head that is not written as `SEQ:DIGEST`. */
export class HeadMalformed extends Error {
  readonly code = 'HEAD_MALFORMED';
  override readonly name = 'HeadMalformed';
}

export interface KnownHead extends ChainHead {
  readonly from: 'the operator' | 'this host';
}

/** What the operator noted, else what this host remembers; null where nobody knows. */
export function knownHead(session: Session, machineId: Uint8Array, expected: string | undefined): KnownHead | null {
  if (expected !== undefined) return { ...parseHead(expected), from: 'the operator' };
  for (const { name } of session.config.machines) {
    const head = rememberedHead(session.config.state, name, machineId);
    if (head !== null) return { ...head, from: 'this host' };
  }
  return null;
}

/** Throws ReplicaRolledBack or ReplicaForked; else says what was compared. */
export async function describeFreshness(
  replica: OpenReplica,
  known: KnownHead | null,
  signal: AbortSignal,
): Promise<string> {
  if (known === null) return 'freshness not checked: no newer head is known here';
  try {
    await checkKnownHead(replica.repo, replica.chain, known, signal);
  } catch (error) {
    // Whoever reads around damage has to live with an entry that can't be compared, and gets told.
    if (replica.damage.length === 0 || remedyFor(error) === null) throw error;
    return `not as new as what ${known.from} knows: ${error instanceof Error ? error.message : error}`;
  }
  return `not older than what ${known.from} knows`;
}

function parseHead(text: string): ChainHead {
  const match = /^(\d{1,16}):([0-9a-f]{64})$/.exec(text.trim());
  if (match === null)
    throw new HeadMalformed(
      `${JSON.stringify(text)} is no head: give it as failkit printed it, SEQ:DIGEST with 64 hex digits`,
    );
  return { seq: Number(match[1]), digest: Uint8Array.from(Buffer.from(match[2] ?? '', 'hex')) };
}

function rememberedHead(folder: string, machineName: string, machineId: Uint8Array): ChainHead | null {
  try {
    using state = new MachineState(folder, machineName);
    return state.machineId !== null && sameBytes(state.machineId, machineId) ? state.head : null;
  } catch (error) {
    // A run that is under way holds the state, and checks the head itself.
    if (error instanceof StateBusy) return null;
    throw error;
  }
}
