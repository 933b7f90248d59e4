import { DataKey } from '../../crypto/data-key.ts';
import { KeyRefused, KeyServiceUnavailable } from '../../crypto/errors.ts';
import type { KeyContext, KeyProvider } from '../../crypto/key-provider.ts';
import { recoveryWrapper } from '../../crypto/recovery-key.ts';
import type { SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import type { Chain } from '../../replica/chain.ts';
import { isDamage } from '../../replica/damage.ts';
import { encodeKeyRecord, type KeyRecord, MachineKeys, openKeyRecord } from '../../replica/key-record.ts';
import type { EpochKeys, KeyRing } from '../../replica/key-ring.ts';
import { keyRecordName, keyRecordPrefix, keyRecordsPrefix } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { Fenced, putOrCompare } from '../../replica/put-once.ts';
import type { BeginFields } from '../../replica/tenure.ts';
import type { MachineState } from '../state/machine-state.ts';

/** The data key that a run seals under: the epoch's own, or that of a new epoch. One KMS call. */

const epochAgeMaxMs = 30 * 24 * 3600 * 1000;
const epochRacesMax = 8;

export interface RunKeyOptions {
  readonly access: 'full' | 'write-only';
  readonly provider: KeyProvider;
  readonly agent: SigningKey;
  readonly now: () => number;
}

export interface RunKeys {
  readonly keys: EpochKeys;
  readonly begin: Pick<BeginFields, 'epoch' | 'keyRecordDigest'>;
  /** The key record in force is damaged or gone: what was sealed under its epoch can't be opened any more. */
  readonly lost: string | null;
  /** The key service gave no answer, and the run goes on with the data key that is kept here. */
  readonly keyServiceAway: string | null;
}

type CurrentKeys = Omit<RunKeys, 'lost'>;

/** The ring disposes the keys. A write-only agent can't unwrap: each of its processes starts an epoch. */
export async function openRunKeys(
  repo: OpenRepository,
  chain: Chain | null,
  machineId: Uint8Array,
  ring: KeyRing,
  state: MachineState,
  options: RunKeyOptions,
  signal: AbortSignal,
): Promise<RunKeys> {
  let lost: string | null = null;
  try {
    const current =
      options.access === 'full' && chain !== null
        ? await readAgain(() => currentKeys(repo, chain, ring, state, options, signal))
        : null;
    if (current !== null) return { ...current, lost };
  } catch (error) {
    if (!isDamage(error)) throw error;
    lost = `repair: the key record of epoch ${chain?.state.epoch} is damaged or gone`;
  }
  const machineKeys = state.machineKeys ?? MachineKeys.generate();
  const firstEpoch = await firstFreeEpoch(repo, machineId, chain?.state.epoch ?? 0, signal);
  for (let epoch = firstEpoch; epoch < firstEpoch + epochRacesMax; epoch++) {
    const context = { repositoryId: repo.repository.repositoryId, machineId, epoch };
    const keys = await newEpoch(repo, context, machineKeys, options, signal);
    if (keys === null) continue;
    ring.add(keys.keys);
    state.keepMachineKeys(machineKeys);
    keepDataKey(state, keys.keys, options);
    return { ...keys, lost, keyServiceAway: null };
  }
  throw new Fenced(
    `${epochRacesMax} key epochs in a row were taken by others: another agent starts over and over on this machine`,
  );
}

/** A bit may have flipped on the way. To believe in damage costs sending everything again: that takes two readings. */
async function readAgain<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isDamage(error)) throw error;
    return await read();
  }
}

/** Runs that ended before they began their tenure have left key records behind: their epochs are passed over, not asked the KMS for. */
async function firstFreeEpoch(
  repo: OpenRepository,
  machineId: Uint8Array,
  inForce: number,
  signal: AbortSignal,
): Promise<number> {
  const prefix = keyRecordsPrefix(machineId);
  let free = inForce + 1;
  // '~' sorts after every character that names may have.
  const startAfter = `${keyRecordPrefix(machineId, inForce)}~`;
  for await (const { name } of repo.target.list(prefix, { startAfter }, signal)) {
    if (name.startsWith(keyRecordPrefix(machineId, free))) free++;
    else if (!name.startsWith(keyRecordPrefix(machineId, free - 1))) break;
  }
  return free;
}

async function currentKeys(
  repo: OpenRepository,
  chain: Chain,
  ring: KeyRing,
  state: MachineState,
  options: RunKeyOptions,
  signal: AbortSignal,
): Promise<CurrentKeys | null> {
  const { epoch } = chain.state;
  const keyRecordDigest = chain.state.epochs.get(epoch);
  if (keyRecordDigest === undefined) return null;
  const record = await ring.record(epoch, signal);
  const isOver =
    options.now() - record.createdMs > epochAgeMaxMs ||
    !isWrappedForRecovery(record, repo) ||
    state.rotationAskedIn === epoch;
  // The machine's own keys are needed for a new epoch, too; a host that lost them has to unwrap them once.
  if (isOver && state.machineKeys !== null) return null;
  const opened = await openEpoch(ring, record, state, options, signal);
  if (opened === null) return null;
  state.keepMachineKeys(opened.keys.machineKeys);
  return isOver ? null : { ...opened, begin: { epoch, keyRecordDigest } };
}

/**
 * The key service is asked first, so that whoever disables the key is heard. Null when it says no, as after moving to another key:
 * a new epoch then needs no old one. When it says nothing, the data key that is kept here does.
 */
async function openEpoch(
  ring: KeyRing,
  record: KeyRecord,
  state: MachineState,
  options: RunKeyOptions,
  signal: AbortSignal,
): Promise<Pick<CurrentKeys, 'keys' | 'keyServiceAway'> | null> {
  try {
    const keys = await ring.epoch(record.context.epoch, signal);
    keepDataKey(state, keys, options);
    return { keys, keyServiceAway: null };
  } catch (error) {
    if (error instanceof KeyRefused && state.machineKeys !== null) return null;
    if (!(error instanceof KeyServiceUnavailable)) throw error;
    const keys = keptKeys(record, state);
    if (keys === null) throw error;
    ring.add(keys);
    return { keys, keyServiceAway: error.message };
  }
}

/** A host that may not unwrap keeps none: its disk, stolen, must open nothing. */
function keepDataKey(state: MachineState, { context, key }: EpochKeys, { access }: RunKeyOptions): void {
  if (access === 'full') state.keepDataKey(context.epoch, key.bytes);
}

/** Null where the kept key is not the one of this record. */
function keptKeys(record: KeyRecord, state: MachineState): EpochKeys | null {
  const bytes = state.dataKey(record.context.epoch);
  if (bytes === null) return null;
  const key = new DataKey(bytes);
  try {
    const { createdMs, context } = record;
    return { createdMs, context, key, machineKeys: openKeyRecord(record, key) };
  } catch (error) {
    key[Symbol.dispose]();
    if (!isDamage(error)) throw error;
    return null;
  }
}

/** After the recovery key was replaced, the new kit shall open the very next point. */
function isWrappedForRecovery(record: KeyRecord, repo: OpenRepository): boolean {
  const { keyId, provider } = recoveryWrapper(repo.trust.recoveryPublicKey);
  return record.wraps.some((wrap) => wrap.provider === provider && wrap.keyId === keyId);
}

/** Null when the epoch's name is taken: a run that ended before it began its tenure, or another agent. */
async function newEpoch(
  repo: OpenRepository,
  context: KeyContext,
  machineKeys: MachineKeys,
  options: RunKeyOptions,
  signal: AbortSignal,
): Promise<Pick<RunKeys, 'keys' | 'begin'> | null> {
  const { key, wrapped } = await options.provider.generateDataKey(context, signal);
  try {
    const recovery = await recoveryWrapper(repo.trust.recoveryPublicKey).wrap(key, context, signal);
    const createdMs = options.now();
    const record = encodeKeyRecord(
      { context, revision: 0, createdMs, wraps: [wrapped, recovery] },
      key,
      machineKeys,
      options.agent,
    );
    const name = keyRecordName(context.machineId, context.epoch, 0);
    const digest = sha256(record);
    if (await putOrCompare(repo.target, name, record, digest, signal)) {
      const own = new MachineKeys(Uint8Array.from(machineKeys.digestKey), Uint8Array.from(machineKeys.saltKey));
      return {
        keys: { createdMs, context, key, machineKeys: own },
        begin: { epoch: context.epoch, keyRecordDigest: digest },
      };
    }
  } catch (error) {
    key[Symbol.dispose]();
    throw error;
  }
  key[Symbol.dispose]();
  return null;
}
