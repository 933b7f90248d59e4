import { chmod, readdir, rmdir } from 'node:fs/promises';
import { freemem, tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import {
  type DiskBus,
  type DrillMachine,
  type DrillOptions,
  type DrillResult,
  diskBuses,
  type MachineResult,
  type Reach,
  reaches,
} from '../../drill/drill.ts';
import { writeEvidence } from '../../drill/evidence.ts';
import { runDrill } from '../../drill/run-drill.ts';
import { toHex } from '../../replica/encoding.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { makeOutputFolder, OutputExists } from '../../restore/sinks/raw-sink.ts';
import {
  accelerator,
  type CheckWanted,
  checksFor,
  DrillOptionInvalid,
  durationOption,
  inOrder,
  parseCheck,
  wholeNumber,
} from '../drill/drill-options.ts';
import { type DrillWanted, type OpenedMachine, openDrillMachine, SharedCache } from '../drill/open-drill-machine.ts';
import { listReplicas } from '../find-machine.ts';
import { servedCacheBytes, workersOf } from '../memory-budget.ts';
import { watchProgress } from '../progress/watch-progress.ts';
import { formatBytes, formatDuration } from '../quantities.ts';
import { exitCodes, remedyFor } from '../remedy.ts';
import { openSession, type Session } from '../session.ts';
import { agentVersion } from '../version.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit drill`: do the machines of a recovery point really boot, and how long does it take? */

interface DrillFlags {
  readonly local: true;
  readonly point?: string;
  readonly evidence?: string;
  readonly order?: string;
  readonly check?: readonly CheckWanted[];
  readonly reach: Reach;
  readonly from: DrillWanted['from'];
  readonly network: DrillOptions['network'];
  readonly firmware: DrillOptions['firmware'];
  readonly accel: 'auto' | 'kvm' | 'tcg';
  readonly diskBus: DiskBus;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly timeout: number;
  readonly work?: string;
}

const defaultTimeoutMs = 300_000;

export function register(program: Command, run: RunCommand): void {
  program
    .command('drill')
    .description('boot machines from a recovery point in isolation, look whether they work, and keep the evidence')
    .argument('[machines...]', 'names or ids (default: all that are configured)')
    .requiredOption('--local', 'on this host, with QEMU')
    .option('--point <point>', 'number, a time, or latest; default: the newest of each')
    .option('--evidence <folder>', 'a new folder for what the machines showed (default: failkit-drill-TIME)')
    .option('--order <names>', 'who boots first, separated by commas; each waits until the one before is usable')
    .option('--check <check>', 'port=22 or command=…, MACHINE: in front for one machine; may be repeated', parseCheck)
    .addOption(new Option('--reach <milestone>', 'how far a machine has to get').choices(reaches).default('agent'))
    .addOption(
      new Option('--from <how>', 'served: blocks are fetched when they are read; restored: every disk first')
        .choices(['served', 'restored'])
        .default('served'),
    )
    .addOption(
      new Option('--network <network>', 'isolated: among these machines, leading nowhere else')
        .choices(['none', 'isolated'])
        .default('none'),
    )
    .addOption(
      new Option('--firmware <firmware>', 'auto: as the point or its boot disk tell')
        .choices(['auto', 'bios', 'uefi'])
        .default('auto'),
    )
    .addOption(
      new Option('--accel <how>', 'auto: kvm where the processor has it')
        .choices(['auto', 'kvm', 'tcg'])
        .default('auto'),
    )
    .addOption(new Option('--disk-bus <bus>', 'what the machine has a driver for').choices(diskBuses).default('virtio'))
    .option('--memory-mib <number>', 'of each machine', wholeNumber(64, 1_048_576), 2048)
    .option('--cpus <number>', 'of each machine', wholeNumber(1, 64), 2)
    .addOption(
      new Option('--timeout <duration>', 'for each machine, from its power-on: 300, 90s, 10min')
        .argParser(durationOption)
        .default(defaultTimeoutMs, '5min'),
    )
    .option('--work <folder>', 'for restored disks and overlays (default: the folder for temporary files)')
    .action((names: string[], flags: DrillFlags, command: Command) =>
      run(command, (context) => drill(names, flags, context)),
    );
}

async function drill(names: readonly string[], flags: DrillFlags, context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  const checks = flags.check ?? [];
  if (checks.length > 0 && flags.reach !== 'agent')
    throw new DrillOptionInvalid(`--check asks the guest agent, which --reach ${flags.reach} does not wait for`);
  await using session = await openSession(context);
  const chosen = inOrder(await chooseNames(names, session, signal), flags.order);
  await using workers = new RestoreWorkers(workersOf(session.config));
  await using stack = new AsyncDisposableStack();
  const cache = new SharedCache(servedCacheBytes(session.config));
  const opened: OpenedMachine[] = [];
  for (const name of chosen) {
    const wanted = { point: flags.point, checks: checksFor(name, checks, chosen), from: flags.from, cache };
    opened.push(await openDrillMachine(name, wanted, session, workers, stack, context));
    refuseTwice(name, opened);
  }
  warnOfMemory(opened.length, flags, context);
  const options = { ...optionsOf(flags), evidenceFolder: await evidenceFolder(flags.evidence) };
  const machines = opened.map(({ machine }) => machine);
  const result = await runWatched(machines, options, context).catch(async (error: unknown) => {
    // A folder in which there is nothing is no evidence; one with something stays.
    await rmdir(options.evidenceFolder).catch(() => undefined);
    throw error;
  });
  await writeEvidence(options.evidenceFolder, result, agentVersion());
  return answer(result, opened, options.evidenceFolder, context);
}

/** Mostly a machine takes less than it may; a host that runs out of memory ends programs as it pleases. */
function warnOfMemory(machines: number, { memoryMib }: DrillFlags, { output }: CommandContext): void {
  const [needed, free] = [machines * memoryMib * 2 ** 20, freemem()];
  if (needed > free)
    output.note(
      `the machines may take ${formatBytes(needed)} together, and this host has ${formatBytes(free)} free: fewer of them, or --memory-mib, if one ends by itself`,
    );
}

/** By its name and by its id, say. */
function refuseTwice(name: string, opened: readonly OpenedMachine[]): void {
  const ids = opened.map(({ machine }) => machine.machineId);
  if (new Set(ids).size < ids.length) throw new DrillOptionInvalid(`${name} is named twice, once in another way`);
}

async function runWatched(
  machines: readonly DrillMachine[],
  options: DrillOptions,
  { output, signal }: CommandContext,
): Promise<DrillResult> {
  await makeOutputFolder(options.workFolder);
  const shown = new ShownProgress();
  using _watching = watchProgress(output, () => shown.progress);
  const tools = {
    onProgress: (machine: string, doing: string) => shown.set(machine, doing),
    explain: whyUnusable,
  };
  return await runDrill(machines, options, tools, signal);
}

/** What is written on the command line, else what is configured, else all that there is: a host for recovery configures none. */
async function chooseNames(
  names: readonly string[],
  session: Session,
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (names.length > 0) return [...new Set(names)];
  if (session.config.machines.length > 0) return session.config.machines.map(({ name }) => name);
  const found: string[] = [];
  for await (const { machineId } of listReplicas(session, signal)) found.push(toHex(machineId));
  if (found.length === 0) throw new DrillOptionInvalid('there is no machine to drill: this repository has no replica');
  return found;
}

function optionsOf(flags: DrillFlags): Omit<DrillOptions, 'evidenceFolder'> {
  return {
    memoryMiB: flags.memoryMib,
    cpus: flags.cpus,
    firmware: flags.firmware,
    network: flags.network,
    accelerator: accelerator(flags.accel),
    diskBus: flags.diskBus,
    reach: flags.reach,
    timeoutMs: flags.timeout,
    workFolder: resolve(flags.work ?? tmpdir()),
  };
}

/** New, or empty: what one drill showed is never mixed with another's. */
async function evidenceFolder(wanted: string | undefined): Promise<string> {
  const folder = resolve(wanted ?? `failkit-drill-${new Date().toISOString().replace(/[:.]/g, '-')}`);
  await makeOutputFolder(folder);
  if ((await readdir(folder)).length > 0)
    throw new OutputExists(`${folder} holds something already: name a new folder with --evidence`);
  // What a machine shows on its consoles is nobody else's business.
  await chmod(folder, 0o700);
  return folder;
}

/** One machine whose point is hurt does not keep the others from being drilled. */
function whyUnusable(error: unknown): string | null {
  const exitCode = remedyFor(error)?.exitCode;
  const isItsOwn = exitCode === exitCodes.damage || exitCode === exitCodes.replica || exitCode === exitCodes.keys;
  return isItsOwn && error instanceof Error ? error.message : null;
}

class ShownProgress {
  #sinceMs = performance.now();
  #machine = 'drill';
  #doing = 'opening the recovery points';

  get progress() {
    return { title: this.#machine, facts: [this.#doing, formatDuration(performance.now() - this.#sinceMs)] };
  }

  set(machine: string, doing: string): void {
    if (machine !== this.#machine || doing !== this.#doing) this.#sinceMs = performance.now();
    this.#machine = machine;
    this.#doing = doing;
  }
}

function answer(
  result: DrillResult,
  opened: readonly { readonly freshness: string }[],
  folder: string,
  { output }: CommandContext,
): CommandAnswer {
  const { green, red, dim } = output.colours;
  const passed = result.machines.filter(({ outcome }) => outcome === 'passed').length;
  const inWhat = result.rtoMs === null ? '' : ` in ${formatDuration(result.rtoMs)}`;
  const verdict = result.outcome === 'passed' ? green('ok') : red('failed');
  return {
    document: { ...result, evidenceFolder: folder, freshness: opened.map(({ freshness }) => freshness) },
    lines: [
      ...result.machines.flatMap((machine, index) => machineLines(machine, opened[index]?.freshness ?? '', output)),
      ...result.findings.map(({ code, what }) => `   ${red(code)}  ${what}`),
      `${verdict} ${passed} of ${result.machines.length} usable${inWhat}; source ${result.sourceUntouched ? 'untouched' : red('WRITTEN TO')}, ${result.cleanedUp ? 'everything cleaned up' : red('something left behind')}`,
      dim(`   evidence: ${folder}`),
    ],
    exitCode: result.outcome === 'passed' ? exitCodes.ok : exitCodes.drill,
  };
}

function machineLines(
  machine: MachineResult,
  freshness: string,
  { colours }: CommandContext['output'],
): readonly string[] {
  const { bold, dim, green, red, yellow } = colours;
  const isPassed = machine.outcome === 'passed';
  const colourOf = { passed: green, failed: red, skipped: dim };
  return [
    `${isPassed ? green('ok') : red('failed')} ${bold(machine.machine)} as of ${machine.snapshotTime} (point ${machine.point}, ${machine.consistency})${machine.rtoMs === null ? '' : `, usable in ${formatDuration(machine.rtoMs)}`}`,
    ...machine.findings.map(({ code, what }) => `   ${red(code)}  ${what}`),
    ...machine.excludedDisks.map((label) => yellow(`   disk ${label} is not in this point`)),
    ...(machine.checks.length === 0
      ? []
      : [`   ${machine.checks.map(({ check, outcome }) => `${check} ${colourOf[outcome](outcome)}`).join(', ')}`]),
    dim(
      `   ${machine.phases.map(({ phase, tookMs }) => `${phase} ${formatDuration(tookMs)}`).join(', ')}; ${formatBytes(machine.fetchedBytes)} fetched`,
    ),
    dim(`   ${freshness}`),
  ];
}
