import type { Command } from 'commander';
import { toHex } from '../../replica/encoding.ts';
import { findGarbage, type Garbage } from '../../replica/garbage.ts';
import { countGarbage, type Swept, sweep } from '../../replica/sweep.ts';
import { formatBytes, plural } from '../quantities.ts';
import { type KeylessSession, openKeylessSession } from '../session.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';
import { idsOf } from './machine-ids.ts';

/** `failkit sweep`: delete what no recovery point needs any more. Needs no key, and nothing of the agent's; it needs to be allowed to delete. */

interface SweepFlags {
  readonly dryRun?: boolean;
}

interface SweptMachine extends Swept {
  readonly machineId: string;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('sweep')
    .description('delete what no recovery point needs any more; works without any key')
    .argument('[machines...]', 'ids, or names that this host replicates (default: every machine in the repository)')
    .option('--dry-run', 'say how much would go')
    .action((names: string[], flags: SweepFlags, command: Command) =>
      run(command, (context) => sweepAll(names, flags, context)),
    );
}

async function sweepAll(names: readonly string[], flags: SweepFlags, context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  const dryRun = flags.dryRun === true;
  await using session = await openKeylessSession(context);
  const machines: SweptMachine[] = [];
  for await (const machineId of idsOf('sweep', names, session, signal)) {
    const garbage = findGarbage(session.repo, machineId, signal);
    machines.push({ machineId: toHex(machineId), ...(await sweepOne(garbage, dryRun, session, signal)) });
  }
  return {
    document: { dryRun, machines },
    lines:
      machines.length === 0 ? ['no machine has a replica here'] : machines.map((each) => lineOf(each, dryRun, context)),
  };
}

async function sweepOne(
  garbage: AsyncIterable<Garbage>,
  dryRun: boolean,
  { store }: KeylessSession,
  signal: AbortSignal,
): Promise<Swept> {
  return dryRun ? await countGarbage(garbage) : await sweep(store.target, garbage, signal);
}

function lineOf(swept: SweptMachine, dryRun: boolean, context: CommandContext): string {
  const { bold, yellow } = context.output.colours;
  const what = `${plural(swept.objects, 'object')}, ${formatBytes(swept.bytes)}`;
  const locked =
    swept.lockedObjects === 0
      ? ''
      : yellow(`; ${plural(swept.lockedObjects, 'object')}, ${formatBytes(swept.lockedBytes)} under object lock yet`);
  return `${bold(swept.machineId)}  ${what} ${dryRun ? 'would be deleted' : 'deleted'}${locked}`;
}
