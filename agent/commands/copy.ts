import type { Command } from 'commander';
import { type CopyProgress, copyDescription, copyMachine } from '../../replica/copy-replica.ts';
import { toHex } from '../../replica/encoding.ts';
import { trustPrefix } from '../../replica/names.ts';
import { newestNumber, openRepository } from '../../replica/open-repository.ts';
import { probePutIfAbsent } from '../../storage-targets/probe.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { makeDurableFolder } from '../durable-files.ts';
import { watchProgress } from '../progress/watch-progress.ts';
import { formatBytes, plural } from '../quantities.ts';
import { openKeylessSession } from '../session.ts';
import { openPinnedRepository, openTarget } from '../wire.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';
import { idsOf } from './machine-ids.ts';

/** `failkit copy`: the same repository at a second place. Ciphertext as it is: it needs no key. */

interface CopyOptions {
  readonly to: string;
}

interface Copied extends CopyProgress {
  readonly machineId: string;
  readonly head: string;
  readonly points: number;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('copy')
    .description('copy recovery points to a second bucket or directory as they are; works without any key')
    .argument('[machines...]', 'ids, or names that this host replicates (default: every machine in the repository)')
    .requiredOption('--to <file>', 'the configuration file whose repository is the destination')
    .action((names: string[], options: CopyOptions, command: Command) =>
      run(command, (context) => copyAll(names, options, context)),
    );
}

async function copyAll(
  names: readonly string[],
  options: CopyOptions,
  context: CommandContext,
): Promise<CommandAnswer> {
  const { signal } = context;
  const destination = context.otherConfig(options.to);
  await using session = await openKeylessSession(context);
  if (destination.repository.target === 'filesystem') makeDurableFolder(destination.repository.directory, 0o777);
  const { target, retention } = await openTarget(destination);
  await using to = target;
  const lockUntil = retention === null ? null : await retention.until(to, signal);
  if ((await newestNumber(to, trustPrefix, signal)) === null) await probePutIfAbsent(to, signal);
  await copyDescription(session.repo, to, signal);
  const machines: Copied[] = [];
  for await (const machineId of idsOf('copy', names, session, signal)) {
    const progress: CopyProgress = { segments: 0, bytes: 0, presentSegments: 0 };
    const id = toHex(machineId);
    using _watching = watchProgress(context.output, () => ({
      title: `${id}  ${formatBytes(progress.bytes)} in ${plural(progress.segments, 'segment')} copied`,
    }));
    const { head, points } = await copyMachine(session.repo, to, machineId, progress, lockUntil, signal);
    machines.push({ machineId: id, head: `${head.seq}:${toHex(head.digest)}`, points, ...progress });
  }
  // What was copied has to be a repository under the same root key.
  await openPinnedRepository(session.config, to, openRepository, signal);
  return {
    document: { to: to.description, machines },
    lines:
      machines.length === 0 ? ['no machine has a replica here'] : machines.map((each) => lineOf(each, to, context)),
  };
}

function lineOf({ machineId, points, segments, bytes }: Copied, to: StorageTarget, context: CommandContext): string {
  const { bold, green } = context.output.colours;
  const what = segments === 0 ? 'nothing was missing' : `${plural(segments, 'segment')}, ${formatBytes(bytes)} copied`;
  return `${green('ok')} ${bold(machineId)}  ${plural(points, 'point')} in ${to.description}: ${what}`;
}
