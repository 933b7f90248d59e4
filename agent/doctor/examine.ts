import { existsSync } from 'node:fs';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import type { PublicKey } from '../../crypto/signing.ts';
import { HypervHosts } from '../../hypervisors/hyperv/hyperv-hosts.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import type { CommandContext } from '../commands/command.ts';
import type { Config } from '../config/config-schema.ts';
import { keyPlaceOf } from '../key-place.ts';
import { openKeyProvider } from '../open-keys.ts';
import { examineLock } from '../open-store.ts';
import { exitCodes } from '../remedy.ts';
import { hypervHost, openTarget } from '../wire.ts';
import { attempt, attemptOnly, type Finding, good, skipped } from './finding.ts';
import {
  checkAgentKey,
  checkConfigFile,
  checkMemory,
  checkNode,
  checkStateFolder,
  hasAgentKey,
} from './host-checks.ts';
import { checkHypervHost } from './hyperv-checks.ts';
import { checkGenerate, checkRecoveryKey, checkUnwrap } from './key-checks.ts';
import { checkMachine } from './source-checks.ts';
import {
  checkCertificate,
  checkClock,
  checkLock,
  checkReachable,
  checkRefusal,
  checkRepository,
} from './store-checks.ts';
import { examineVsphere } from './vsphere-checks.ts';

/** Every dependency of the configuration, first on this host and then on the network. What fails keeps only those from being checked that need it. */
export async function* examine(context: CommandContext): AsyncGenerator<Finding, void> {
  const { signal } = context;
  yield* attemptOnly('node', signal, checkNode);
  const config = yield* attempt('configuration', signal, () => {
    const value = context.config();
    return { verdict: checkConfigFile(context.configFile(), value), value };
  });
  if (config === null) {
    yield skipped('everything else', 'a valid configuration');
    return;
  }
  await using opened = new AsyncDisposableStack();
  const agentKey = yield* examineHost(config, signal);
  const provider = yield* attemptKeys(config, opened, signal);
  const repo = yield* examineStore(config, agentKey, opened, signal);
  yield* examineKeys(config, provider, repo, signal);
}

async function* examineHost(config: Config, signal: AbortSignal): AsyncGenerator<Finding, PublicKey | null> {
  yield* attemptOnly('memory', signal, () => checkMemory(config));
  // One worker for each host, however many machines are looked at.
  await using hosts = new HypervHosts();
  yield* examineSources(config, hosts, signal);
  let disksBytes = 0;
  for (const machine of config.machines)
    disksBytes +=
      (yield* attempt(
        `machine ${machine.name}`,
        signal,
        (either) => checkMachine(config, machine, hosts, either),
        exitCodes.source,
      )) ?? 0;
  yield* attemptOnly('state folder', signal, () => checkStateFolder(config, disksBytes));
  if (hasAgentKey(config)) return yield* attempt('agent key', signal, () => checkAgentKey(config));
  yield skipped('agent key', 'failkit init, or failkit root request where the repository is already: they make it');
  return null;
}

async function* examineSources(config: Config, hosts: HypervHosts, signal: AbortSignal): AsyncGenerator<Finding, void> {
  for (const source of config.sources)
    if (source.type === 'vsphere') yield* examineVsphere(config, source, signal);
    else {
      const check = (either: AbortSignal) => checkHypervHost(hosts, hypervHost(source), either);
      yield* attemptOnly(`source ${source.name}`, signal, check, exitCodes.source);
    }
}

/** Opens the file of a local key; a KMS is not asked yet. */
async function* attemptKeys(
  { keys }: Config,
  opened: AsyncDisposableStack,
  signal: AbortSignal,
): AsyncGenerator<Finding, KeyProvider | null> {
  if (keys.provider === 'local-key' && !existsSync(keys.file)) {
    yield skipped('key file', `failkit init, which makes ${keys.file}; if it was there before, your copy of it`);
    return null;
  }
  const check = 'file' in keys ? 'key file' : 'key service';
  return yield* attempt(check, signal, async () => {
    const { provider } = opened.use(await openKeyProvider(keys));
    const what = 'file' in keys ? `${keys.file}: private, ${provider.keyId}` : `${keyPlaceOf(keys)}: asked below`;
    return { verdict: good(what), value: provider };
  });
}

async function* examineStore(
  config: Config,
  agentKey: PublicKey | null,
  opened: AsyncDisposableStack,
  signal: AbortSignal,
): AsyncGenerator<Finding, OpenRepository | null> {
  const target = yield* attempt('store', signal, async (either) => {
    const store = await openTarget(config);
    opened.use(store.target);
    return { verdict: await checkReachable(store.target, either), value: store.target };
  });
  if (target === null) {
    for (const check of ['clock', 'repository', 'puts', 'certificate']) yield skipped(check, 'the store');
    return null;
  }
  yield* attemptOnly('clock', signal, (either) => checkClock(target, either));
  const { repository } = config;
  if (repository.target !== 'filesystem' && repository.immutability !== null)
    yield* attemptOnly('object lock', signal, async (either) =>
      checkLock(await examineLock(repository, either), target),
    );
  const repo = yield* attempt('repository', signal, (either) => checkRepository(config, target, either));
  if (repo === null) {
    for (const check of ['puts', 'certificate']) yield skipped(check, 'the repository');
    return null;
  }
  if (config.machines.length === 0) {
    yield skipped('puts', 'machines to protect: this host only reads');
    return repo;
  }
  yield* attemptOnly('puts', signal, (either) => checkRefusal(target, either));
  if (agentKey === null) yield skipped('certificate', 'the agent key');
  else yield* attemptOnly('certificate', signal, () => checkCertificate(repo, agentKey));
  return repo;
}

async function* examineKeys(
  config: Config,
  provider: KeyProvider | null,
  repo: OpenRepository | null,
  signal: AbortSignal,
): AsyncGenerator<Finding, void> {
  if (provider === null) {
    yield skipped('data keys', 'the key file or key service');
  } else if (config.keys.provider === 'recovery-key') {
    if (repo === null) yield skipped('recovery key', 'the repository');
    else yield* attemptOnly('recovery key', signal, () => checkRecoveryKey(provider, repo));
  } else if (config.machines.length === 0) {
    yield skipped('data keys', 'machines to protect: this host only reads');
  } else {
    const tried = yield* attempt(
      'data keys',
      signal,
      (either) => checkGenerate(provider, repo, either),
      exitCodes.keys,
    );
    if (tried === null) yield skipped('unwrapping', 'data keys');
    else
      yield* attemptOnly(
        'unwrapping',
        signal,
        (either) => checkUnwrap(provider, tried, config, either),
        exitCodes.keys,
      );
  }
}
