import type { KeyProvider } from '../crypto/key-provider.ts';
import { HypervHosts } from '../hypervisors/hyperv/hyperv-hosts.ts';
import { type OpenRepository, openRepository } from '../replica/open-repository.ts';
import { openRepositorySalvage } from '../replica/salvage-repository.ts';
import { Bandwidth } from '../storage-targets/bandwidth.ts';
import { ClockSkewed } from '../storage-targets/errors.ts';
import { probeRefusal } from '../storage-targets/probe.ts';
import type { CommandContext } from './commands/command.ts';
import type { Config } from './config/config-schema.ts';
import { openKeyProvider } from './open-keys.ts';
import { LimitsWatch, type RunningLimits } from './watch-limits.ts';
import { type OpenStore, openPinnedRepository, openTarget } from './wire.ts';

/** The repository, opened and checked. */
export interface KeylessSession extends AsyncDisposable {
  readonly config: Config;
  readonly store: OpenStore;
  /** Of each machine's disks together. */
  readonly readRate: Bandwidth;
  /** That its machines of Hyper-V are on. */
  readonly hypervHosts: HypervHosts;
  readonly repo: OpenRepository;
}

/** What most commands need: also who unwraps its keys. */
export interface Session extends KeylessSession {
  readonly provider: KeyProvider;
}

export const clockSkewMaxMs = 5 * 60 * 1000;
/** A fixed name that every start tries to put again. */
export const probedName = 'probe/fixed';

/** `salvage`: read around a damaged descriptor or trust statement; for listing, verifying and restoring only. */
export async function openSession(context: CommandContext, options: OpenOptions = {}): Promise<Session> {
  await using opened = new AsyncDisposableStack();
  const { provider } = opened.use(await openKeyProvider(context.config().keys));
  const keyless = opened.use(await openKeylessSession(context, options));
  const close = opened.move();
  return { ...keyless, provider, [Symbol.asyncDispose]: () => close.disposeAsync() };
}

/** For what is signed and not sealed: it asks no key service, and needs no key file. */
export async function openKeylessSession(
  context: CommandContext,
  { salvage = false }: OpenOptions = {},
): Promise<KeylessSession> {
  const config = context.config();
  await using opened = new AsyncDisposableStack();
  const store = await openTarget(config);
  opened.use(store.target);
  const readRate = new Bandwidth(config.limits.readBytesPerSecond);
  opened.use(keepLimits({ ...store.bandwidth, read: readRate }, context));
  const hypervHosts = opened.use(new HypervHosts());
  const open = salvage ? openRepositorySalvage : openRepository;
  const repo = await openPinnedRepository(config, store.target, open, context.signal);
  if (repo.pinnedRootReplaced) {
    context.output.note(
      'the pinned root key was replaced: take the new fingerprint from the new recovery kit into rootFingerprint',
    );
  }
  const close = opened.move();
  return { config, store, readRate, hypervHosts, repo, [Symbol.asyncDispose]: () => close.disposeAsync() };
}

/** Those who share a link change their minds in the middle of a seed that takes days. */
function keepLimits(limits: RunningLimits, context: CommandContext): Disposable {
  const say = (line: string) => {
    context.output.note(line);
    if (context.config().logging.file !== null) context.logger().warn(line);
  };
  const stack = new DisposableStack();
  const watch = stack.use(
    new LimitsWatch({
      file: context.configFile(),
      loadedAs: context.configLoadedAs(),
      reload: context.reloadConfig,
      limits,
      say,
    }),
  );
  stack.use(context.onHangUp(() => watch.reread()));
  watch.start();
  return stack;
}

interface OpenOptions {
  readonly salvage?: boolean;
}

/** Before anything is written: does the store still refuse to overwrite, and does it agree with us about the time? */
export async function checkStore(session: Session, signal: AbortSignal): Promise<void> {
  await probeRefusal(session.store.target, probedName, signal);
  const skewMs = Date.now() - (await session.store.target.now(signal)).getTime();
  if (Math.abs(skewMs) <= clockSkewMaxMs) return;
  const minutes = Math.round(Math.abs(skewMs) / 60_000);
  throw new ClockSkewed(
    `the clock of this host is ${minutes} minutes ${skewMs > 0 ? 'ahead of' : 'behind'} that of ${session.store.target.description}`,
  );
}
