import type { Command } from 'commander';
import { type InventoryEntry, listInventory } from '../../hypervisors/vsphere/inventory.ts';
import type { VsphereDisk } from '../../hypervisors/vsphere/machine-disks.ts';
import { readTags, type TagsByMachine } from '../../hypervisors/vsphere/tags.ts';
import type { VimSession } from '../../hypervisors/vsphere/vim25/vim-session.ts';
import { openVimSession } from '../../hypervisors/vsphere/vsphere-machine.ts';
import { machineRefusal } from '../../hypervisors/vsphere/vsphere-site.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import type { Config, VsphereServerConfig } from '../config/config-schema.ts';
import { formatBytes, plural } from '../quantities.ts';
import { formatTable } from '../table.ts';
import { vsphereServer } from '../wire.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit machines`: what a vCenter or an ESXi host has, to choose from. */

interface MachinesOptions {
  readonly source?: string;
  readonly folder?: string;
  readonly pool?: string;
  readonly tag?: string;
}

interface Listed extends InventoryEntry {
  readonly source: string;
  /** Its name in the configuration; null where it is not protected. */
  readonly protectedAs: string | null;
  /** As `category/name`; null where nobody asked for them. */
  readonly tags: readonly string[] | null;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('machines')
    .description('list the machines of vCenters and ESXi hosts, and what can be protected of them')
    .option('--source <name>', 'of this source only (default: of all)')
    .option('--folder <path>', 'those below this folder, as datacenter/vm/folder')
    .option('--pool <path>', 'those in this resource pool or below it, as cluster/Resources/pool')
    .option('--tag <tag>', 'those with this tag of vCenter, as name or category/name')
    .action((options: MachinesOptions, command: Command) => run(command, (context) => listMachines(options, context)));
}

async function listMachines(options: MachinesOptions, context: CommandContext): Promise<CommandAnswer> {
  const config = context.config();
  const machines: Listed[] = [];
  for (const source of chosenSources(config, options.source)) {
    await using session = openVimSession(vsphereServer(source));
    const tags = options.tag === undefined ? null : await tagsOf(session, source, context.signal);
    for (const entry of await listInventory(session, context.signal)) {
      const own = tags?.get(entry.machine.ref.id) ?? [];
      if (isBelow(entry.path, options.folder) && isBelow(entry.pool ?? '', options.pool) && isTagged(own, options.tag))
        machines.push({
          ...entry,
          source: source.name,
          protectedAs: nameInConfig(config, source.name, entry),
          tags: tags && own,
        });
    }
  }
  return { document: { machines: machines.map(documentOf) }, lines: linesOf(machines, context) };
}

function chosenSources({ sources }: Config, name: string | undefined): readonly VsphereServerConfig[] {
  const chosen = sources.filter((source) => name === undefined || source.name === name);
  if (chosen.length > 0) return chosen;
  const what =
    name === undefined
      ? 'is empty: name a vCenter or ESXi host to list the machines of'
      : `has no ${name}: there is ${sources.map((source) => source.name).join(', ') || 'none'}`;
  throw new ConfigInvalid('configuration', [{ line: null, key: 'sources', what }]);
}

/** A single ESXi host has no tags. */
async function tagsOf(session: VimSession, source: VsphereServerConfig, signal: AbortSignal): Promise<TagsByMachine> {
  const { about } = await session.content(signal);
  return about.isVirtualCenter ? await readTags(vsphereServer(source), signal) : new Map();
}

function isTagged(tags: readonly string[], wanted: string | undefined): boolean {
  return wanted === undefined || tags.some((tag) => tag === wanted || tag.endsWith(`/${wanted}`));
}

function isBelow(path: string, above: string | undefined): boolean {
  const folder = above?.replace(/^\/+|\/+$/g, '');
  return folder === undefined || path === folder || path.startsWith(`${folder}/`);
}

function nameInConfig({ machines }: Config, sourceName: string, { machine, path }: InventoryEntry): string | null {
  const found = machines.find(
    ({ source }) =>
      source.type === 'vsphere' &&
      source.from === sourceName &&
      (source.instanceUuid === undefined ? source.path === path : source.instanceUuid === machine.instanceUuid),
  );
  return found?.name ?? null;
}

function documentOf({ source, path, pool, machine, protectedAs, tags }: Listed): object {
  const { name, instanceUuid, powerState, tracking, firmware, hardwareVersion, encrypted, hasTpm } = machine;
  return {
    source,
    path,
    pool,
    ...(tags !== null && { tags }),
    name,
    instanceUuid,
    protectedAs,
    powerState,
    tracking,
    firmware,
    hardwareVersion,
    encrypted,
    hasTpm,
    needsConsolidation: machine.needsConsolidation,
    snapshots: machine.snapshots.map((snapshot) => snapshot.name),
    refusal: machineRefusal(machine),
    disks: machine.disks.map(({ label, capacityBytes, file, encrypted: sealed, refusal }) => ({
      label,
      capacityBytes,
      file,
      encrypted: sealed,
      refusal,
    })),
  };
}

function linesOf(machines: readonly Listed[], { output }: CommandContext): readonly string[] {
  const { dim, green, yellow } = output.colours;
  const rows = machines.map(({ path, machine, protectedAs }) => [
    path,
    machine.instanceUuid ?? '',
    protectedAs === null ? dim('no') : green(protectedAs),
    machine.powerState.replace(/^powered/, '').toLowerCase(),
    machine.tracking === 'on' ? 'on' : yellow(machine.tracking),
    machine.disks.map(({ label, capacityBytes }) => `${label} ${formatBytes(capacityBytes)}`).join(', '),
  ]);
  const columns = [
    { title: 'machine', cut: true },
    { title: 'instance UUID' },
    { title: 'protected as' },
    { title: 'power', spare: 2 },
    { title: 'tracking', spare: 1 },
    { title: 'disks', spare: 3 },
  ];
  const notes = machines.flatMap(({ path, machine }) => [
    ...[machineRefusal(machine)].flatMap((why) => (why === null ? [] : [`${path}: ${why}`])),
    ...machine.disks.flatMap((disk) => noteOn(disk).map((note) => `${path}: ${disk.label}: ${note}`)),
    ...(machine.hasTpm ? [`${path}: the content of its virtual TPM is not captured`] : []),
  ]);
  return [
    ...formatTable(columns, rows, output.columns),
    ...(notes.length === 0 ? [] : ['', ...notes.map((note) => yellow(note))]),
    '',
    plural(machines.length, 'machine'),
  ];
}

function noteOn({ refusal, encrypted }: VsphereDisk): readonly string[] {
  if (refusal !== null) return [refusal];
  return encrypted
    ? ['it is encrypted by vSphere: the account needs Cryptographer.Access, and is given it in clear']
    : [];
}
