import { timingSafeEqual } from 'node:crypto';
import { KeyRefused } from '../../crypto/errors.ts';
import type { KeyProvider, WrappedKey } from '../../crypto/key-provider.ts';
import type { SigningKey } from '../../crypto/signing.ts';
import type { KeyRecord } from '../../replica/key-record.ts';
import type { EpochKeys } from '../../replica/key-ring.ts';
import { putRevision } from '../../replica/rewrap.ts';
import { requireCertified } from '../../replica/trust.ts';
import type { Session } from '../session.ts';
import { type KeyedMachine, openEpochs } from './keyed-machines.ts';

export interface RewrapPlan {
  /** Who unwraps, in this order. */
  readonly openers: readonly KeyProvider[];
  /** Who wraps. */
  readonly wrappers: readonly KeyProvider[];
  /** Keep the wraps that are there, and add to them. */
  readonly add: boolean;
  /** Also epochs that these keys have wrapped already, as for a new version of one. */
  readonly again: boolean;
}

export interface RewrappedEpoch {
  readonly machine: string;
  readonly epoch: number;
  /** Null: nothing had to be done. */
  readonly revision: number | null;
  readonly wraps: readonly WrappedKey[];
  /** False: this host may wrap with the new key and not unwrap, so that nobody has seen the wrap open. */
  readonly tried: boolean;
}

/** Each epoch's key record gets a revision with new wraps; the one before stays as it is. */
export async function* rewrapMachine(
  session: Session,
  machine: KeyedMachine,
  plan: RewrapPlan,
  agent: SigningKey,
  signal: AbortSignal,
): AsyncGenerator<RewrappedEpoch> {
  const opened = await openEpochs(session, machine, plan.openers, signal);
  using replica = opened.replica;
  requireCertified(session.repo.trust, agent.publicKey, machine.machineId, replica.chain.head.seq + 1);
  for (const epoch of opened.epochs) {
    const record = await replica.keys.record(epoch, signal);
    const common = { machine: machine.name, epoch };
    if (!plan.again && isDone(record, plan)) {
      yield { ...common, revision: null, wraps: record.wraps, tried: false };
      continue;
    }
    const keys = await replica.keys.epoch(epoch, signal);
    const kept = plan.add ? record.wraps.filter((wrap) => !plan.wrappers.some((wrapper) => isBy(wrap, wrapper))) : [];
    const wraps: WrappedKey[] = [];
    for (const wrapper of plan.wrappers) wraps.push(await wrapper.wrap(keys.key, keys.context, signal));
    const tried = await tryWrap(wraps[0], keys, plan.wrappers[0], signal);
    const written = await putRevision(session.repo, { ...keys, record }, [...wraps, ...kept], agent, signal);
    yield { ...common, revision: written.revision, wraps: written.wraps, tried };
  }
}

function isDone(record: KeyRecord, { wrappers, add }: RewrapPlan): boolean {
  const all = wrappers.every((wrapper) => record.wraps.some((wrap) => isBy(wrap, wrapper)));
  return all && (add || record.wraps.length === wrappers.length);
}

function isBy(wrap: WrappedKey, { provider, keyId }: KeyProvider): boolean {
  return wrap.provider === provider && wrap.keyId === keyId;
}

/** Before it is written: the first wrap has to open, as far as that can be tried here. Throws KeyRefused where it opens to another key. */
async function tryWrap(
  wrap: WrappedKey | undefined,
  { key, context }: EpochKeys,
  wrapper: KeyProvider | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  if (wrap === undefined || wrapper === undefined) return false;
  try {
    using again = await wrapper.unwrap(wrap, context, signal);
    if (timingSafeEqual(again.bytes, key.bytes)) return true;
  } catch (error) {
    if (error instanceof KeyRefused && error.code === 'KEY_DENIED') return false;
    throw error;
  }
  throw new KeyRefused(
    `${wrapper.keyId} gave back another data key than it wrapped: keep the former key, and report this`,
  );
}
