import type { Command } from 'commander';
import { type InventoryEntry, listInventory } from '../../hypervisors/vsphere/inventory.ts';
import { readTags, type TagsByMachine } from '../../hypervisors/vsphere/tags.ts';
import type { VimSession } from '../../hypervisors/vsphere/vim25/vim-session.ts';
import { openVimSession } from '../../hypervisors/vsphere/vsphere-machine.ts';
import { machineRefusal } from '../../hypervisors/vsphere/vsphere-site.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import type { Config, SourceConfig, VsphereServerConfig } from '../config/config-schema.ts';
import { formatBytes, plural } from '../quantities.ts';
import { formatTable } from '../table.ts';
import { vsphereServer } from '../wire.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';
import { listHyperv } from './list-hyperv.ts';

/** `failkit machines`: what a vCenter, an ESXi host or a Hyper-V host has, to choose from. */

interface MachinesOptions {
  readonly source?: string;
  readonly folder?: string;
  readonly pool?: string;
  readonly tag?: string;
}

/** Of any source: what the table shows of it, and what `--json` does. */
export interface ListedMachine {
  readonly path: string;
  readonly pool: string | null;
  /** What the configuration finds it by. */
  readonly id: string | null;
  /** Its name in the configuration; null where it is not protected. */
  readonly protectedAs: string | null;
  /** As `category/name`; null where nobody asked for them. */
  readonly tags: readonly string[] | null;
  readonly power: string;
  readonly tracking: string;
  readonly tpm: boolean;
  readonly refusal: string | null;
  readonly disks: readonly {
    readonly label: string;
    readonly capacityBytes: number | null;
    readonly refusal: string | null;
    readonly encrypted?: boolean;
  }[];
  readonly document: object;
}

export function register(program: Command, run: RunCommand): void {
  program
    .command('machines')
    .description('list the machines of vCenters, ESXi hosts and Hyper-V hosts, and what can be protected of them')
    .option('--source <name>', 'of this source only (default: of all)')
    .option('--folder <path>', 'those below this folder, as datacenter/vm/folder')
    .option('--pool <path>', 'those in this resource pool or below it, as cluster/Resources/pool')
    .option('--tag <tag>', 'those with this tag of vCenter, as name or category/name')
    .action((options: MachinesOptions, command: Command) => run(command, (context) => listMachines(options, context)));
}

async function listMachines(options: MachinesOptions, context: CommandContext): Promise<CommandAnswer> {
  const config = context.config();
  const machines: ListedMachine[] = [];
  for (const source of chosenSources(config, options.source))
    for (const machine of await listSource(config, source, options.tag, context.signal))
      if (isWanted(machine, options)) machines.push(machine);
  return { document: { machines: machines.map(({ document }) => document) }, lines: linesOf(machines, context) };
}

function isWanted({ path, pool, tags }: ListedMachine, { folder, pool: below, tag }: MachinesOptions): boolean {
  return isBelow(path, folder) && isBelow(pool ?? '', below) && isTagged(tags ?? [], tag);
}

/** Tags are asked for only where somebody chooses by one. */
async function listSource(
  config: Config,
  source: SourceConfig,
  tag: string | undefined,
  signal: AbortSignal,
): Promise<readonly ListedMachine[]> {
  return source.type === 'vsphere'
    ? await listVsphere(config, source, tag, signal)
    : await listHyperv(config, source, signal);
}

async function listVsphere(
  config: Config,
  source: VsphereServerConfig,
  tag: string | undefined,
  signal: AbortSignal,
): Promise<readonly ListedMachine[]> {
  await using session = openVimSession(vsphereServer(source));
  const known = tag === undefined ? null : await tagsOf(session, source, signal);
  const entries = await listInventory(session, signal);
  return entries.map((entry) => {
    const { path, pool, machine } = entry;
    const protectedAs = nameInConfig(config, source.name, entry);
    const tags = known === null ? null : (known.get(machine.ref.id) ?? []);
    return {
      ...{ tags, path, pool, protectedAs, id: machine.instanceUuid, tracking: machine.tracking, tpm: machine.hasTpm },
      power: machine.powerState.replace(/^powered/, '').toLowerCase(),
      ...{ refusal: machineRefusal(machine), disks: machine.disks },
      document: documentOf(source.name, protectedAs, entry, tags),
    };
  });
}

function chosenSources({ sources }: Config, name: string | undefined): readonly SourceConfig[] {
  const chosen = sources.filter((source) => name === undefined || source.name === name);
  if (chosen.length > 0) return chosen;
  const what =
    name === undefined
      ? 'is empty: name a vCenter, an ESXi host or a Hyper-V host to list the machines of'
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

function documentOf(
  source: string,
  protectedAs: string | null,
  { path, pool, machine }: InventoryEntry,
  tags: readonly string[] | null,
): object {
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

function linesOf(machines: readonly ListedMachine[], { output }: CommandContext): readonly string[] {
  const { dim, green, yellow } = output.colours;
  const rows = machines.map(({ path, id, protectedAs, power, tracking, disks }) => [
    path,
    id ?? '',
    protectedAs === null ? dim('no') : green(protectedAs),
    power,
    tracking === 'on' ? 'on' : yellow(tracking),
    disks.map(({ label, capacityBytes: size }) => (size === null ? label : `${label} ${formatBytes(size)}`)).join(', '),
  ]);
  const columns = [
    { title: 'machine', cut: true },
    { title: 'instance UUID' },
    { title: 'protected as' },
    { title: 'power', spare: 2 },
    { title: 'tracking', spare: 1 },
    { title: 'disks', spare: 3 },
  ];
  const notes = machines.flatMap(({ path, refusal, disks, tpm }) => [
    ...(refusal === null ? [] : [`${path}: ${refusal}`]),
    ...disks.flatMap((disk) => noteOn(disk).map((note) => `${path}: ${disk.label}: ${note}`)),
    ...(tpm ? [`${path}: the content of its virtual TPM is not captured`] : []),
  ]);
  return [
    ...formatTable(columns, rows, output.columns),
    ...(notes.length === 0 ? [] : ['', ...notes.map((note) => yellow(note))]),
    '',
    plural(machines.length, 'machine'),
  ];
}

function noteOn({ refusal, encrypted }: ListedMachine['disks'][number]): readonly string[] {
  if (refusal !== null) return [refusal];
  return encrypted === true
    ? ['it is encrypted by vSphere: the account needs Cryptographer.Access, and is given it in clear']
    : [];
}
