import { ReplicaNotFound } from '../../replica/chain.ts';
import { pinRetained } from '../../replica/pin-retained.ts';
import { putPin } from '../../replica/pins.ts';
import type { OpenReplica } from '../../restore/open-point.ts';
import { lockedMsOf } from '../choose-point.ts';
import type { CommandContext } from '../commands/command.ts';

/** A point that is being read is held meanwhile, so that no sweep takes away what is read next. */

const pinHours = 48;
const renewedEveryMs = 24 * 3_600_000;
const removalTimeoutMs = 10_000;

/**
 * Puts a pin, renews it daily, and removes it at the end; one that can't be removed expires. Throws ReplicaNotFound where the point was
 * pruned before the pin was there (rule R8). No pin is no reason not to restore: the log says why there is none.
 */
export async function holdPoint(
  { repo, chain: { machineId } }: OpenReplica,
  point: number,
  { signal, config, logger }: Pick<CommandContext, 'signal' | 'config' | 'logger'>,
): Promise<AsyncDisposable> {
  const names: string[] = [];
  const warn = (error: unknown, what: string): void => {
    if (config().logging.file !== null) logger().warn({ point, error: String(error) }, what);
  };
  const take = async (put: Promise<string>): Promise<void> => {
    try {
      names.push(await put);
    } catch (error) {
      if (signal.aborted || error instanceof ReplicaNotFound) throw error;
      warn(error, 'the point is not pinned while it is read');
    }
  };
  await take(pinRetained(repo, machineId, point, { hours: pinHours, lockedMs: lockedMsOf(config()) }, signal));
  // Only an interruption comes through, and that is known elsewhere.
  const renew = () => take(putPin(repo.target, machineId, point, pinHours, signal)).catch(() => undefined);
  const renewal = setInterval(() => void renew(), renewedEveryMs).unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(renewal);
      // Also after an interruption, so not by the signal of the command.
      const removed = repo.target.delete(names, AbortSignal.timeout(removalTimeoutMs));
      await removed.catch((error: unknown) => warn(error, 'the pin of the point stays until it expires'));
    },
  };
}
