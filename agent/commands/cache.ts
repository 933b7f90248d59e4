import type { Command } from 'commander';
import { BlockMap } from '../../replica/block-map.ts';
import { sameBytes } from '../../replica/encoding.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { findMachine } from '../find-machine.ts';
import { cachedPages } from '../protect/page-cache.ts';
import { openSession } from '../session.ts';
import { StateUnusable } from '../state/errors.ts';
import { MachineState } from '../state/machine-state.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit cache rebuild`: give a host that lost its state the newest point's map, so that it need not send everything again. */
export function register(program: Command, run: RunCommand): void {
  program
    .command('cache')
    .description("look after the agent's local cache")
    .command('rebuild')
    .description('fetch the map of the newest recovery point again; needs keys that open it (KMS or recovery key)')
    .argument('<machine>', 'name from the configuration')
    .action((machine: string, _options: unknown, command: Command) =>
      run(command, (context) => rebuild(machine, context)),
    );
}

async function rebuild(machine: string, context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  await using session = await openSession(context);
  const machineId = await findMachine(session, machine, signal);
  using state = new MachineState(session.config.state, machine);
  if (state.machineId !== null && !sameBytes(state.machineId, machineId)) {
    throw new StateUnusable(
      `the state of machine ${machine} belongs to another replica: move ${session.config.state} away first`,
    );
  }
  using replica = await OpenReplica.open(session.repo, machineId, [session.provider], signal);
  const newest = replica.points.at(-1);
  state.clearCache();
  state.claim(session.repo.repository.repositoryId, machineId);
  if (newest === undefined)
    return { document: { machine, point: null, pages: 0 }, lines: [`${machine} has no recovery point yet`] };
  const { manifest } = await replica.openPoint(newest, signal);
  using reader = new SegmentReader(session.repo, machineId, replica.keys);
  const source = cachedPages(state, reader);
  let pages = 0;
  for (const disk of manifest.disks)
    for await (const _page of new BlockMap(disk, disk.root, source).pages(signal)) pages++;
  const entryDigest = replica.chain.state.points.get(newest)?.digest;
  if (entryDigest !== undefined) state.stagePoint(entryDigest, manifest, null);
  state.settlePoint([]);
  const { machineKeys } = await replica.keys.epoch(replica.chain.state.epoch, signal);
  state.keepMachineKeys(machineKeys);
  return {
    document: { machine, point: newest, pages },
    lines: [`${machine}: ${pages} pages of point ${newest} are in the cache`],
  };
}
