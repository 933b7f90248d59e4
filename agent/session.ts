import type { KeyProvider } from '../crypto/key-provider.ts';
import { type OpenRepository, openRepository } from '../replica/open-repository.ts';
import { openRepositorySalvage } from '../replica/salvage-repository.ts';
import { ClockSkewed } from '../storage-targets/errors.ts';
import { probeRefusal } from '../storage-targets/probe.ts';
import type { WrappedTarget } from '../storage-targets/wrap-target.ts';
import type { CommandContext } from './commands/command.ts';
import type { Config } from './config/config-schema.ts';
import { openKeyProvider, openPinnedRepository, openTarget } from './wire.ts';

/** What most commands need: the repository, opened and checked, and who unwraps its keys. */
export interface Session extends AsyncDisposable {
  readonly config: Config;
  readonly store: WrappedTarget;
  readonly repo: OpenRepository;
  readonly provider: KeyProvider;
}

const clockSkewMaxMs = 5 * 60 * 1000;
/** A fixed name that every start tries to put again. */
const probedName = 'probe/fixed';

/** `salvage`: read around a damaged descriptor or trust statement; for listing, verifying and restoring only. */
export async function openSession(context: CommandContext, { salvage = false } = {}): Promise<Session> {
  const config = context.config();
  await using opened = new AsyncDisposableStack();
  const store = await openTarget(config);
  opened.use(store.target);
  const { provider } = opened.use(await openKeyProvider(config.keys));
  const open = salvage ? openRepositorySalvage : openRepository;
  const repo = await openPinnedRepository(config, store.target, open, context.signal);
  if (repo.pinnedRootReplaced) {
    context.output.note(
      'the pinned root key was replaced: take the new fingerprint from the new recovery kit into rootFingerprint',
    );
  }
  const close = opened.move();
  return { config, store, repo, provider, [Symbol.asyncDispose]: () => close.disposeAsync() };
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
