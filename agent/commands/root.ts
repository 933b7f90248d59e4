import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { generateRecoveryKey, recoveryWrapper } from '../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { keyIdOf, type PublicKey, SigningKey } from '../../crypto/signing.ts';
import { loadSigningKeyFile } from '../../crypto/signing-key-file.ts';
import { sha256 } from '../../crypto/suite.ts';
import { putTrust } from '../../replica/create-repository.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { chainEntryName, chainPrefix } from '../../replica/names.ts';
import { listMachineIds, newestNumber } from '../../replica/open-repository.ts';
import {
  type AgentTrust,
  type RevocationCutoff,
  RootMismatch,
  replaceRoot,
  type TrustStatement,
} from '../../replica/trust.ts';
import { OutputExists, OutputUnusable } from '../../restore/sinks/raw-sink.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import { plural } from '../quantities.ts';
import { writeRecoveryKit } from '../recovery-kit.ts';
import { openSession, type Session } from '../session.ts';
import { formatTable } from '../table.ts';
import { openAgentKey, pinRoot } from '../wire.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit root`: what the customer's root key certifies, revokes and hands over. The root key itself stays offline. */

interface RootOptions {
  readonly rootKey: string;
}

export function register(program: Command, run: RunCommand): void {
  const root = program
    .command('root')
    .description('certify, revoke and replace keys with the root key of the recovery kit');
  const signed = (name: string, description: string): Command =>
    root.command(name).description(description).requiredOption('--root-key <file>', 'root.key of the recovery kit');
  root
    .command('show')
    .description('show which keys the repository trusts')
    .action((_options: unknown, command: Command) => run(command, showTrust));
  root
    .command('request')
    .description("write this host's agent key (public half) to a file, for root certify")
    .argument('<file>')
    .action((file: string, _options: unknown, command: Command) =>
      run(command, (context) => requestCertificate(file, context)),
    );
  signed('certify', 'let an agent publish recovery points')
    .argument('[file]', 'what root request wrote on that host (default: the key of this host)')
    .action((file: string | undefined, options: RootOptions, command: Command) =>
      run(command, (context) => certify(file, options, context)),
    );
  signed('revoke', "end an agent's right to publish; what it has published until now stays valid")
    .argument('<agent>', 'key id, as root show prints it')
    .option('--raise', 'of a key that is revoked already: let everything count that it has published until now')
    .action((agent: string, options: RootOptions & { raise?: boolean }, command: Command) =>
      run(command, (context) => revoke(agent, options, context)),
    );
  signed('floor', 'say how long every recovery point is kept, whoever prunes it: sweeping leaves younger ones alone')
    .argument('<days>', 'whole days; 0: no floor')
    .action((days: string, options: RootOptions, command: Command) =>
      run(command, (context) => setFloor(days, options, context)),
    );
  signed('replace', 'hand over to a new root key and a new recovery key, in a new recovery kit')
    .requiredOption('--kit <folder>', 'new folder for the new kit')
    .option('--keep-recovery-key', 'keep the recovery key of the former kit')
    .action((options: RootOptions & { kit: string; keepRecoveryKey?: boolean }, command: Command) =>
      run(command, (context) => replace(options, context)),
    );
}

async function showTrust(context: CommandContext): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const { trust } = session.repo;
  const own = keyIdOf((await openAgentKey(session.config)).publicKey);
  const agents = trust.agents.map(({ key, revoked }) => ({
    keyId: toHex(keyIdOf(key)),
    status: revoked === null ? 'certified' : 'revoked',
    thisHost: sameBytes(keyIdOf(key), own),
    cutoffs: (revoked ?? []).map(({ machineId, lastSeq }) => ({ machineId: toHex(machineId), lastSeq })),
  }));
  const rows = agents.map(({ keyId, status, thisHost }) => [keyId, status, thisHost ? 'this host' : '']);
  return {
    document: {
      rootFingerprint: rootFingerprint(trust.root),
      statement: trust.n,
      rootsReplaced: trust.lineage.length,
      recoveryKey: recoveryWrapper(trust.recoveryPublicKey).keyId,
      retentionFloorDays: trust.retentionFloorDays,
      agents,
    },
    lines: [
      `root fingerprint  ${rootFingerprint(trust.root)}`,
      `recovery key      ${recoveryWrapper(trust.recoveryPublicKey).keyId}`,
      `trust statement   ${trust.n}, of ${new Date(trust.createdMs).toISOString()}`,
      `retention floor   ${trust.retentionFloorDays === 0 ? 'none' : plural(trust.retentionFloorDays, 'day')}`,
      ...formatTable([{ title: 'agent key' }, { title: 'status' }, { title: '' }], rows),
    ],
  };
}

async function requestCertificate(file: string, context: CommandContext): Promise<CommandAnswer> {
  const { publicKey } = await openAgentKey(context.config());
  writeRequest(file, encodePublicKey(publicKey));
  const keyId = toHex(keyIdOf(publicKey));
  return {
    document: { keyId, file },
    lines: [
      `agent key ${keyId}`,
      `take ${file} to where the root key is, and run there: failkit root certify --root-key root.key ${file}`,
    ],
  };
}

async function certify(
  file: string | undefined,
  options: RootOptions,
  context: CommandContext,
): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const key = file === undefined ? (await openAgentKey(session.config)).publicKey : decodePublicKey(file);
  const keyId = keyIdOf(key);
  const others = session.repo.trust.agents.filter((agent) => !sameBytes(keyIdOf(agent.key), keyId));
  const known = session.repo.trust.agents.find((agent) => sameBytes(keyIdOf(agent.key), keyId));
  if (known?.revoked === null) return said(`agent key ${toHex(keyId)} is certified already`, keyId);
  if (known !== undefined)
    throw keyProblem(
      `agent key ${toHex(keyId)} was revoked: a revoked key never comes back; remove agent.key on that host, so that it makes a new one`,
    );
  await publishTrust(session, options, { agents: [...others, { key, revoked: null }] }, context.signal);
  return said(`agent key ${toHex(keyId)} may publish from now on`, keyId);
}

/**
 * An honest agent that has not seen the revocation yet may build on a late entry of the revoked one; `--raise` takes that entry in, so
 * that the chain makes sense again.
 */
async function revoke(
  agent: string,
  options: RootOptions & { raise?: boolean },
  context: CommandContext,
): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const { trust } = session.repo;
  const known = trust.agents.find(({ key }) => toHex(keyIdOf(key)) === agent);
  if (known === undefined) throw keyProblem(`no agent key ${agent}: failkit root show lists them`);
  if (known.revoked !== null && options.raise !== true)
    return said(`agent key ${agent} is revoked already`, keyIdOf(known.key));
  const revoked: AgentTrust = { key: known.key, revoked: await cutoffsNow(session, context.signal) };
  await publishTrust(
    session,
    options,
    { agents: trust.agents.map((each) => (each === known ? revoked : each)) },
    context.signal,
  );
  return said(
    `agent key ${agent} is revoked: what it published until now stays valid, nothing later does`,
    keyIdOf(known.key),
  );
}

/** Every machine's head at this moment, read without the chain, which may make no sense just now. */
async function cutoffsNow(session: Session, signal: AbortSignal): Promise<readonly RevocationCutoff[]> {
  const cutoffs: RevocationCutoff[] = [];
  for await (const machineId of listMachineIds(session.store.target, signal)) {
    const { target } = session.repo;
    const lastSeq = await newestNumber(target, chainPrefix(machineId), signal);
    if (lastSeq === null) continue;
    cutoffs.push({
      machineId,
      lastSeq,
      digest: sha256(await target.get(chainEntryName(machineId, lastSeq), null, signal)),
    });
  }
  return cutoffs;
}

async function setFloor(days: string, options: RootOptions, context: CommandContext): Promise<CommandAnswer> {
  const retentionFloorDays = Number(days);
  if (!/^\d{1,5}$/.test(days)) throw keyProblem(`${JSON.stringify(days)} is no number of days`);
  await using session = await openSession(context);
  const former = session.repo.trust.retentionFloorDays;
  if (former !== retentionFloorDays) await publishTrust(session, options, { retentionFloorDays }, context.signal);
  const floor = retentionFloorDays === 0 ? 'no floor' : plural(retentionFloorDays, 'day');
  return { document: { retentionFloorDays, former }, lines: [`retention floor: ${floor}`] };
}

async function replace(
  options: RootOptions & { kit: string; keepRecoveryKey?: boolean },
  context: CommandContext,
): Promise<CommandAnswer> {
  await using session = await openSession(context);
  const { trust, repository } = session.repo;
  const oldRoot = await loadRoot(options, trust);
  const newRoot = SigningKey.generate();
  const recovery = options.keepRecoveryKey === true ? null : await generateRecoveryKey();
  await writeRecoveryKit(options.kit, { root: newRoot, recovery }, session.config);
  const step = replaceRoot(repository.repositoryId, oldRoot, newRoot.publicKey);
  const next = nextStatement(trust, {
    root: newRoot.publicKey,
    lineage: [...trust.lineage, step],
    recoveryPublicKey: recovery?.publicKey ?? trust.recoveryPublicKey,
  });
  await putTrust(session.store.target, next, newRoot, context.signal);
  const fingerprint = rootFingerprint(newRoot.publicKey);
  pinRoot(session.config, fingerprint);
  return {
    document: { rootFingerprint: fingerprint, kit: options.kit, newRecoveryKey: recovery !== null },
    lines: [
      `root fingerprint  ${fingerprint}`,
      `recovery kit      ${options.kit}`,
      'give every other host the new fingerprint (rootFingerprint)',
      recovery === null
        ? 'the recovery key is the same: keep the former kit, too'
        : 'the next run of each machine starts a key epoch for the new recovery key; keep the former kit for as long as older points are kept',
    ],
  };
}

async function publishTrust(
  session: Session,
  options: RootOptions,
  change: Partial<TrustStatement>,
  signal: AbortSignal,
): Promise<void> {
  const { trust } = session.repo;
  const root = await loadRoot(options, trust);
  await putTrust(session.store.target, nextStatement(trust, change), root, signal);
}

function nextStatement(trust: Session['repo']['trust'], change: Partial<TrustStatement>): TrustStatement {
  const { digest, ...fields } = trust;
  return { ...fields, ...change, n: trust.n + 1, previous: digest, createdMs: Date.now() };
}

async function loadRoot({ rootKey }: RootOptions, trust: TrustStatement): Promise<SigningKey> {
  const root = await loadSigningKeyFile(rootKey);
  if (sameBytes(keyIdOf(root.publicKey), keyIdOf(trust.root))) return root;
  throw new RootMismatch(
    `${rootKey} is not the root key in force (${rootFingerprint(trust.root)}), but ${rootFingerprint(root.publicKey)}`,
  );
}

const publicKeyForm = /^failkit-agent-key 1 ([0-9]{1,3}) ([A-Za-z0-9+/]+=*)\n?$/;

function encodePublicKey(key: PublicKey): string {
  return `failkit-agent-key 1 ${key.algorithm} ${Buffer.from(key.bytes).toString('base64')}\n`;
}

function decodePublicKey(file: string): PublicKey {
  const match = publicKeyForm.exec(readRequest(file));
  if (match === null)
    throw keyProblem(`${file} is no agent key: make it with failkit root request on the agent's host`);
  return { algorithm: Number(match[1]), bytes: Uint8Array.from(Buffer.from(match[2] ?? '', 'base64')) };
}

function writeRequest(file: string, text: string): void {
  try {
    writeFileSync(file, text, { flag: 'wx' });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
    if (error.code === 'EEXIST') throw new OutputExists(`${file} exists: choose another name`, { cause: error });
    throw new OutputUnusable(`${file} can't be written: ${error.message}`, { cause: error });
  }
}

function readRequest(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw keyProblem(`${file} can't be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function keyProblem(what: string): ConfigInvalid {
  return new ConfigInvalid('root', [{ line: null, key: '', what }]);
}

function said(line: string, keyId: Uint8Array): CommandAnswer {
  return { document: { keyId: toHex(keyId), result: line }, lines: [line] };
}
