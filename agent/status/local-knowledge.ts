import { join } from 'node:path';
import { KeyFileUnusable } from '../../crypto/errors.ts';
import { keyIdOf } from '../../crypto/signing.ts';
import { loadSigningKeyFile } from '../../crypto/signing-key-file.ts';
import type { ChainHead } from '../../replica/chain.ts';
import type { KnownTrust } from '../../replica/open-repository.ts';
import type { Config } from '../config/config-schema.ts';
import { type KeptManifest, MachineState } from '../state/machine-state.ts';
import type { RunRecord } from '../state/run-record.ts';
import type { TrackRecord } from '../vigilance/track-record.ts';

/** What this host's state folder tells of a machine. */
export interface LocalKnowledge {
  readonly repositoryId: Uint8Array | null;
  readonly machineId: Uint8Array | null;
  readonly head: ChainHead | null;
  readonly trust: KnownTrust | null;
  readonly manifests: readonly KeptManifest[];
  /** What a run that did not end well had stored: the next one adopts it. */
  readonly unfinished: { readonly segments: number; readonly bytes: number } | null;
  readonly damagedSegments: number;
  readonly runRecord: RunRecord;
  readonly track: TrackRecord;
  /** A run is under way; the rest is what was known before it. */
  readonly running: boolean;
}

/** Null where this host never protected the machine. Neither waits for a run nor is in its way. */
export function localKnowledge({ state: folder }: Config, machineName: string): LocalKnowledge | null {
  return MachineState.look(folder, machineName, (state, running) => ({
    repositoryId: state.repositoryId,
    machineId: state.machineId,
    head: state.head,
    trust: state.trust,
    manifests: state.manifests(),
    unfinished: unfinishedRun(state),
    damagedSegments: state.damagedSegments.length,
    runRecord: state.runRecord,
    track: state.trackRecord,
    running,
  }));
}

function unfinishedRun(state: MachineState): LocalKnowledge['unfinished'] {
  const stored = state.journalSegments();
  if (stored.length === 0) return null;
  return { segments: stored.length, bytes: stored.reduce((sum, { size }) => sum + size, 0) };
}

/** Id of this host's signing key; null where there is none yet, or none that may be read. */
export async function ownKeyId({ state }: Config): Promise<Uint8Array | null> {
  try {
    return keyIdOf((await loadSigningKeyFile(join(state, 'agent.key'))).publicKey);
  } catch (error) {
    if (error instanceof KeyFileUnusable) return null;
    throw error;
  }
}
