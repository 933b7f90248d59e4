import { existsSync } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { definitionName, nvramName } from '../hypervisors/kvm/libvirt/capture-definition.ts';
import { openVirsh } from '../hypervisors/kvm/libvirt/virsh.ts';
import { parseMachine, qemuMachineName } from '../hypervisors/kvm/qemu-machine.ts';
import { type MachineShape, newDefinition, shapeOf } from '../restore/definition/new-definition.ts';
import { plainShape, qemuScript } from '../restore/definition/qemu-script.ts';
import type { RestoredDisk, RestoredMachine } from '../restore/definition/restored-machine.ts';
import type { OpenPoint } from '../restore/open-point.ts';
import { OutputExists, OutputUnusable, outputError } from '../restore/sinks/raw-sink.ts';

/** A restored machine made known to libvirt, or described in a file. */

/** What was asked for can't be made of this point. */
export class DefinitionImpossible extends Error {
  readonly code = 'DEFINITION_IMPOSSIBLE';
  override readonly name = 'DefinitionImpossible';
}

export interface DefineOptions {
  readonly to: string;
  readonly format: string;
  readonly disk?: string;
  readonly force?: boolean;
  /** An address of libvirt. */
  readonly define?: string;
  /** Files to write. */
  readonly defineFile?: string;
  readonly qemu?: string;
  readonly name?: string;
  readonly network?: string;
  /** A source of vSphere that the machine is uploaded to. */
  readonly vsphere?: string;
}

/** Before anything is restored: hours later would be too late to hear of it. */
export async function checkDefinition(options: DefineOptions, point: OpenPoint, signal: AbortSignal): Promise<void> {
  const { define, defineFile, qemu, name, network } = options;
  const impossible = (why: string): DefinitionImpossible => new DefinitionImpossible(why);
  const defines = define !== undefined || defineFile !== undefined;
  if (options.vsphere !== undefined) {
    if (defines || qemu !== undefined)
      throw impossible('a machine is made at one place: leave out --vsphere, or --define, --define-file and --qemu');
    return;
  }
  if (!defines && qemu === undefined) {
    if (name !== undefined)
      throw impossible('--name names what --define, --define-file, --qemu or --vsphere makes: give one of them');
    if (network !== undefined)
      throw impossible('--network is for --define, --define-file and --vsphere: give one of them');
    return;
  }
  if (options.disk !== undefined) throw impossible('a machine is defined with all its disks: leave out --disk');
  if (defines && !point.manifest.attachments.some((attachment) => attachment.name === definitionName))
    throw impossible(
      `point ${point.point} of ${point.manifest.machineName} holds no definition of libvirt, because it was not read through libvirt: say --qemu for a script that starts it`,
    );
  if (defines && options.format === 'vhdx')
    throw impossible('libvirt starts no machine from vhdx files: restore raw or qcow2');
  if (!defines && network !== undefined)
    throw impossible('the script for QEMU connects no network: leave out --network');
  const wanted = nameOf(options, point);
  if (/[/\n]/.test(wanted))
    throw impossible(`${JSON.stringify(wanted)} is no name for a machine: it holds a slash or a line break`);
  checkFiles(options, point);
  if (define === undefined) return;
  using virsh = openVirsh(define);
  const taken = await virsh.ask(['domuuid', '--domain', wanted], signal);
  if (taken !== null)
    throw new OutputExists(`libvirt at ${define} has a domain ${wanted} already: choose another --name`);
  if (network !== undefined && (await virsh.ask(['net-uuid', '--network', network], signal)) === null)
    throw impossible(
      `libvirt at ${define} has no network ${network}: virsh -c ${define} net-list --all shows what it has`,
    );
}

/** What is written beside the disks, when they are there. */
function checkFiles(options: DefineOptions, point: OpenPoint): void {
  const { to, define, defineFile, qemu } = options;
  const asked = [defineFile, qemu].filter((file) => file !== undefined);
  const own = [
    ...(define !== undefined && defineFile === undefined ? [ownDefinition(options, nameOf(options, point))] : []),
    ...(point.manifest.attachments.some(({ name }) => name === nvramName) ? [resolve(to, nvramName)] : []),
  ];
  for (const file of [...asked, ...own]) if (existsSync(file) && options.force !== true) throw fileExists(file);
  for (const file of asked)
    if (!existsSync(dirname(resolve(file))))
      throw new OutputUnusable(`${file} can't be written: there is no folder ${dirname(resolve(file))}`);
}

/** Returns what was made, in words. */
export async function defineRestored(
  options: DefineOptions,
  point: OpenPoint,
  disks: readonly RestoredDisk[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { define, defineFile, qemu } = options;
  if (define === undefined && defineFile === undefined && qemu === undefined) return [];
  const machine: RestoredMachine = {
    name: nameOf(options, point),
    disks: disks.map((disk) => ({ ...disk, path: resolve(disk.path) })),
    nvram: await placeVariables(options, point),
    network: options.network ?? null,
  };
  const holds = point.manifest.attachments.some((attachment) => attachment.name === definitionName);
  const captured = holds ? await readFile(join(options.to, 'attachments', definitionName), 'utf8') : null;
  const made: string[] = [];
  if (captured !== null && (define !== undefined || defineFile !== undefined)) {
    const definition = newDefinition(captured, machine);
    const file = defineFile ?? ownDefinition(options, machine.name);
    await writeNew(file, definition, options);
    if (defineFile !== undefined) made.push(`definition in ${file}`);
    if (define !== undefined) {
      using virsh = openVirsh(define);
      await virsh.run(['define', '--file', file], signal);
      made.push(`defined as ${machine.name} in libvirt at ${define}: virsh -c ${define} start ${machine.name}`);
    }
  }
  if (qemu !== undefined) {
    const shape = captured === null ? await capturedShape(options, point) : shapeOf(captured);
    await writeNew(qemu, qemuScript(machine, shape), options);
    await chmod(qemu, 0o700);
    made.push(`script for QEMU in ${qemu}`);
  }
  return made;
}

function ownDefinition({ to }: DefineOptions, name: string): string {
  return join(to, `${name}.xml`);
}

/** Of a machine that was read by QEMU's own monitor; of any other that libvirt did not describe, a plain one. */
async function capturedShape({ to }: DefineOptions, { manifest }: OpenPoint): Promise<MachineShape> {
  if (!manifest.attachments.some(({ name }) => name === qemuMachineName)) return plainShape;
  const machine = parseMachine(await readFile(join(to, 'attachments', qemuMachineName), 'utf8'));
  return machine === null ? plainShape : { ...machine, buses: new Map(Object.entries(machine.buses)) };
}

/** libvirt allows no slash in a name, and it stands on command lines. */
export function nameOf({ name }: Pick<DefineOptions, 'name'>, { manifest }: OpenPoint): string {
  return name ?? `${manifest.machineName.replaceAll(/[^A-Za-z0-9._-]/g, '_')}-restored`;
}

/** A copy, for the machine writes to it. */
async function placeVariables(options: DefineOptions, { manifest }: OpenPoint): Promise<string | null> {
  if (!manifest.attachments.some((attachment) => attachment.name === nvramName)) return null;
  const path = resolve(options.to, nvramName);
  await writeNew(path, await readFile(join(options.to, 'attachments', nvramName)), options);
  return path;
}

async function writeNew(path: string, content: string | Uint8Array, { force }: DefineOptions): Promise<void> {
  try {
    await writeFile(path, content, { flag: force === true ? 'w' : 'wx', mode: 0o600 });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') throw fileExists(path);
    throw outputError(error, path);
  }
}

function fileExists(path: string): OutputExists {
  return new OutputExists(`${path} exists: choose another name, or say --force to overwrite it`);
}
