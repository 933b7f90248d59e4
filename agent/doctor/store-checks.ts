import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { keyIdOf, type PublicKey } from '../../crypto/signing.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { repositoryName } from '../../replica/names.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { AgentNotTrusted } from '../../replica/trust.ts';
import type { BucketLock } from '../../storage-targets/bucket-lock.ts';
import { ClockSkewed, Unsupported } from '../../storage-targets/errors.ts';
import { probeRefusal } from '../../storage-targets/probe.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import type { Config } from '../config/config-schema.ts';
import { formatDuration } from '../quantities.ts';
import { clockSkewMaxMs, probedName } from '../session.ts';
import { openPinnedRepository } from '../wire.ts';
import { type Checked, doubtful, good, type Verdict } from './finding.ts';

/** What only the bucket can tell. */

/** Signatures of requests and dates of object lock depend on the clock; an agent in step with NTP is never this far off. */
const clockToleranceMs = 60_000;

export async function checkReachable(target: StorageTarget, signal: AbortSignal): Promise<Verdict> {
  const startedMs = performance.now();
  await target.now(signal);
  const answerMs = performance.now() - startedMs;
  for await (const _object of target.list(repositoryName, { limit: 1 }, signal));
  return good(`${target.description} answers in ${formatDuration(answerMs)}, and may be listed`);
}

export async function checkClock(target: StorageTarget, signal: AbortSignal): Promise<Verdict> {
  const skewMs = Date.now() - (await target.now(signal)).getTime();
  const apart = Math.abs(skewMs);
  if (apart <= clockToleranceMs) return good('within a minute of the clock of the store');
  const what = `this host is ${formatDuration(apart)} ${skewMs > 0 ? 'ahead of' : 'behind'} ${target.description}`;
  if (apart > clockSkewMaxMs) throw new ClockSkewed(what);
  return doubtful(what, `set the clock (NTP): runs stop at ${formatDuration(clockSkewMaxMs)}`);
}

export async function checkRepository(
  config: Config,
  target: StorageTarget,
  signal: AbortSignal,
): Promise<Checked<OpenRepository>> {
  const value = await openPinnedRepository(config, target, openRepository, signal);
  const inForce = rootFingerprint(value.trust.root);
  const verdict = value.pinnedRootReplaced
    ? doubtful(
        `the pinned root key was replaced by ${inForce}`,
        'compare with the new recovery kit, then set rootFingerprint to it',
      )
    : good('opens under the pinned root key');
  return { verdict, value };
}

/** By the name that every run tries: a put that is refused shows that puts are allowed, too, and leaves nothing. */
export async function checkRefusal(target: StorageTarget, signal: AbortSignal): Promise<Verdict> {
  await probeRefusal(target, probedName, signal);
  return good('puts are allowed, and a taken name is refused');
}

export function checkLock(lock: BucketLock, target: StorageTarget): Verdict {
  const { feature, archives } = lock;
  if (lock.enabled === false)
    throw new Unsupported(
      `${target.description} has no ${feature}, and repository.immutability asks for it: ${lock.enabling}`,
    );
  if (lock.hasDefaultRetention)
    return doubtful(
      'the bucket has a default retention: it locks pins and probes, too, which are to be removed',
      "remove the bucket's default retention: the agent locks each object by itself",
    );
  if (lock.deletesOld)
    return doubtful(
      'rules of the bucket delete or hide what is old: a segment of the first day may be part of the newest point',
      'remove these rules for the prefix of the repository: failkit sweep deletes what nothing needs',
    );
  if (archives !== null && archives.length > 0)
    return doubtful(
      `objects are, or by rules of the bucket will be, in ${archives.join(', ')}: a restore then waits for hours`,
      'remove these rules for the prefix of the repository, and bring back what was moved',
    );
  if (lock.enabled === null)
    return doubtful(
      `whether ${target.description} has ${feature} may not be asked from here`,
      `ask its owner; where it has none, the first put says so. To have it, ${lock.enabling}`,
    );
  return good(
    archives === null
      ? `the bucket has ${feature}; its lifecycle rules may not be read from here`
      : `the bucket has ${feature}, and no rule that is in the way`,
  );
}

export function checkCertificate({ trust }: OpenRepository, key: PublicKey): Verdict {
  const keyId = toHex(keyIdOf(key));
  const known = trust.agents.find((agent) => sameBytes(keyIdOf(agent.key), keyIdOf(key)));
  if (known?.revoked === null) return good('this host may publish');
  throw new AgentNotTrusted(
    known === undefined
      ? `the key of this host, ${keyId}, is not certified: take what failkit root request writes to where the root key is`
      : `the key of this host, ${keyId}, was revoked: remove agent.key, so that it gets a new one, and certify that`,
  );
}
