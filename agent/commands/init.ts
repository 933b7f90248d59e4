import { randomBytes } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { readKeyFile } from '../../crypto/key-file.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { createLocalKeyFile } from '../../crypto/local-key.ts';
import { generateRecoveryKey, testRecoveryWrap } from '../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { createRepository, RepositoryExists } from '../../replica/create-repository.ts';
import { toHex } from '../../replica/encoding.ts';
import { repositoryName, trustPrefix } from '../../replica/names.ts';
import { newestNumber } from '../../replica/open-repository.ts';
import { ObjectNotFound } from '../../storage-targets/errors.ts';
import { probePutIfAbsent } from '../../storage-targets/probe.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import type { Config } from '../config/config-schema.ts';
import { makeDurableFolder } from '../durable-files.ts';
import { openKeyProvider } from '../open-keys.ts';
import { kitFiles, requireNewFolder, writeRecoveryKit } from '../recovery-kit.ts';
import { openAgentKey, openTarget, pinRoot } from '../wire.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit init`: make the repository, its keys and the recovery kit. */

interface InitOptions {
  readonly kit: string;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('init')
    .description('make the repository, its root key, its recovery key, and the recovery kit that holds both')
    .requiredOption('--kit <folder>', 'new folder for the recovery kit: the only copy of the root and recovery keys')
    .action((options: InitOptions, command: Command) => run(command, (context) => initialise(options, context)));
}

/** The kit is durable before the repository exists, so that no repository is ever without one. */
async function initialise({ kit }: InitOptions, context: CommandContext): Promise<CommandAnswer> {
  const config = context.config();
  const { signal } = context;
  requireNewFolder(kit);
  if (config.repository.target === 'filesystem') makeDurableFolder(config.repository.directory, 0o777);
  const { target } = await openTarget(config);
  await using _target = target;
  await requireNoRepository(target, signal);
  context.output.progress({ title: 'asking the store whether it refuses to overwrite…' });
  await probePutIfAbsent(target, signal);
  const madeKeyFile = await ensureLocalKey(config);
  using keys = await openKeyProvider(config.keys);
  await tryKeys(keys.provider, config, signal);

  context.output.progress({ title: 'making the root key and the recovery key…' });
  const root = SigningKey.generate();
  const recovery = await generateRecoveryKey();
  const agent = await openAgentKey(config);
  await writeRecoveryKit(kit, { root, recovery }, config);
  recovery.privatePem.fill(0);
  await testKit(kit, recovery.publicKey, signal);
  const fields = { root, recoveryPublicKey: recovery.publicKey, agents: [agent.publicKey], createdMs: Date.now() };
  const repository = await createOrTakeBackKit(target, fields, kit, signal);
  const fingerprint = rootFingerprint(root.publicKey);
  pinRoot(config, fingerprint);

  const { bold, green } = context.output.colours;
  return {
    document: { repositoryId: toHex(repository.repositoryId), rootFingerprint: fingerprint, kit, madeKeyFile },
    lines: [
      `${green('ok')} ${target.description} is a Failkit repository now`,
      `root fingerprint  ${bold(fingerprint)}`,
      `recovery kit      ${bold(kit)}  (tested; keep it offline: it is the only copy)`,
      ...(madeKeyFile === null ? [] : [`local key         ${bold(madeKeyFile)}  (copy it to a safe place)`]),
      'next              failkit seed',
    ],
  };
}

async function requireNoRepository(target: StorageTarget, signal: AbortSignal): Promise<void> {
  try {
    await target.head(repositoryName, signal);
  } catch (error) {
    if (error instanceof ObjectNotFound) return;
    throw error;
  }
  if ((await newestNumber(target, trustPrefix, signal)) === null) {
    throw new RepositoryExists(
      `${target.description} holds the beginning of a repository: an init was interrupted. Nothing is protected in it: remove the object named ${repositoryName} there, and run init again`,
    );
  }
  throw new RepositoryExists(`${target.description} holds a repository already: nothing was changed`);
}

/** The embedded default needs no KMS: its key file is made here, once. */
async function ensureLocalKey(config: Config): Promise<string | null> {
  if (config.keys.provider !== 'local-key' || existsSync(config.keys.file)) return null;
  await createLocalKeyFile(config.keys.file);
  return config.keys.file;
}

/** One wrap and, where this host may, one unwrap: a KMS that refuses is found now and not at the first seed. */
async function tryKeys(provider: KeyProvider, config: Config, signal: AbortSignal): Promise<void> {
  const context = { repositoryId: Uint8Array.from(randomBytes(16)), machineId: new Uint8Array(16), epoch: 1 };
  const { key, wrapped } = await provider.generateDataKey(context, signal);
  key[Symbol.dispose]();
  if (config.access === 'full') (await provider.unwrap(wrapped, context, signal))[Symbol.dispose]();
}

/** What the kit's file holds opens what every agent will wrap: tried with the file as it was written. */
async function testKit(kit: string, publicKey: Uint8Array, signal: AbortSignal): Promise<void> {
  const pem = await readKeyFile(join(kit, kitFiles.recoveryKey));
  const context = { repositoryId: Uint8Array.from(randomBytes(16)), machineId: new Uint8Array(16), epoch: 1 };
  await testRecoveryWrap(publicKey, pem, context, signal);
  pem.fill(0);
}

async function createOrTakeBackKit(
  target: StorageTarget,
  fields: Parameters<typeof createRepository>[1],
  kit: string,
  signal: AbortSignal,
): ReturnType<typeof createRepository> {
  try {
    return await createRepository(target, fields, signal);
  } catch (error) {
    // Somebody else was quicker: the keys of this kit belong to nothing.
    if (error instanceof RepositoryExists) rmSync(kit, { recursive: true });
    throw error;
  }
}
