import type { Command } from 'commander';
import { toHex } from '../../replica/encoding.ts';
import { findGarbage, type Garbage } from '../../replica/garbage.ts';
import { listMachineIds } from '../../replica/open-repository.ts';
import { countGarbage, type Swept, sweep } from '../../replica/sweep.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import { formatBytes, plural } from '../quantities.ts';
import { type KeylessSession, openKeylessSession } from '../session.ts';
import { MachineState } from '../state/machine-state.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

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
  for await (const machineId of idsOf(names, session, signal)) {
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

async function* idsOf(
  names: readonly string[],
  { store, config }: KeylessSession,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (names.length === 0) yield* listMachineIds(store.target, signal);
  for (const name of names) yield idOf(name, config.state);
}

/** Names are encrypted in the bucket, and a sweeper has no key. */
function idOf(name: string, stateFolder: string): Uint8Array {
  if (/^[0-9a-f]{32}$/.test(name)) return Uint8Array.from(Buffer.from(name, 'hex'));
  const known = MachineState.look(stateFolder, name, ({ machineId }) => machineId);
  if (known !== null) return known;
  throw new ConfigInvalid('sweep', [
    { line: null, key: '', what: `this host does not know the id of ${name}: give it as failkit points prints it` },
  ]);
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
