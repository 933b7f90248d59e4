import { openChain, ReplicaNotFound } from '../../replica/chain.ts';
import { putPin } from '../../replica/pins.ts';
import type { OpenReplica } from '../../restore/open-point.ts';
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
  { signal, config, logger }: CommandContext,
): Promise<AsyncDisposable> {
  const names: string[] = [];
  const warn = (error: unknown, what: string): void => {
    if (config().logging.file !== null) logger().warn({ point, error: String(error) }, what);
  };
  const pin = async (): Promise<void> => {
    try {
      names.push(await putPin(repo.target, machineId, point, pinHours, signal));
    } catch (error) {
      if (!signal.aborted) warn(error, 'the point is not pinned while it is read');
    }
  };
  await pin();
  signal.throwIfAborted();
  if (names.length > 0) await requireRetained({ repo, machineId, point }, signal);
  const renewal = setInterval(() => void pin(), renewedEveryMs).unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(renewal);
      // Also after an interruption, so not by the signal of the command.
      const removed = repo.target.delete(names, AbortSignal.timeout(removalTimeoutMs));
      await removed.catch((error: unknown) => warn(error, 'the pin of the point stays until it expires'));
    },
  };
}

async function requireRetained(
  { repo, machineId, point }: { readonly point: number; readonly machineId: Uint8Array } & Pick<OpenReplica, 'repo'>,
  signal: AbortSignal,
): Promise<void> {
  const chain = await openChain(repo, machineId, signal);
  if (chain?.state.points.has(point) === true) return;
  throw new ReplicaNotFound(`recovery point ${point} was pruned just now: choose another`);
}
