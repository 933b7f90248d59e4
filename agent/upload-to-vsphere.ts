import { sha256 } from '../crypto/suite.ts';
import { machineConfigurationName, nvramName } from '../hypervisors/vsphere/capture-configuration.ts';
import { findPlace } from '../hypervisors/vsphere/new-machine/find-place.ts';
import { MachineUpload, type ReadDisk } from '../hypervisors/vsphere/new-machine/upload-machine.ts';
import { parseSoapXml } from '../hypervisors/vsphere/vim25/soap-xml.ts';
import { openVimSession } from '../hypervisors/vsphere/vsphere-machine.ts';
import { toHex } from '../replica/encoding.ts';
import type { DiskState } from '../replica/manifest.ts';
import type { SegmentReader } from '../replica/segment-reader.ts';
import type { OpenPoint } from '../restore/open-point.ts';
import { readAttachment } from '../restore/restore-attachments.ts';
import type { RestoreSink } from '../restore/sinks/sink.ts';
import type { CommandContext } from './commands/command.ts';
import type { Config, VsphereServerConfig } from './config/config-schema.ts';
import { type DefineOptions, DefinitionImpossible, nameOf } from './define-restored.ts';
import { formatBytes } from './quantities.ts';
import { vsphereServer } from './wire.ts';

/** A restored machine becomes a machine of a vCenter or an ESXi host. */

export interface VsphereOptions extends Pick<DefineOptions, 'disk' | 'name' | 'network' | 'vsphere'> {
  readonly datastore?: string;
  readonly vmFolder?: string;
  readonly pool?: string;
}

/** A whole disk, before it takes its name. */
export interface RestoredOutput {
  readonly disk: DiskState;
  readonly sink: RestoreSink;
}

interface PlannedUpload extends AsyncDisposable {
  /** Returns what was made, in words. */
  upload(outputs: readonly RestoredOutput[], signal: AbortSignal): Promise<readonly string[]>;
}

interface From {
  readonly point: OpenPoint;
  readonly machineId: Uint8Array;
  readonly reader: SegmentReader;
}

/** vSphere names no machine with more. */
const nameCharsMax = 80;
const noteEveryMs = 30_000;

/** Everything that can be known before anything is restored. Null where nothing of this was asked for. */
export async function planUpload(
  options: VsphereOptions,
  from: From,
  context: CommandContext,
): Promise<PlannedUpload | null> {
  const { signal } = context;
  const { vsphere, datastore } = checked(options);
  if (vsphere === undefined) return null;
  const name = checkedName(options, from.point);
  const server = vsphereServer(sourceOf(context.config(), vsphere));
  const machine = { name, ...(await capturedMachine(from, name, signal)) };
  await using opening = new AsyncDisposableStack();
  const session = opening.use(openVimSession(server));
  const { vmFolder = null, pool = null, network = null } = options;
  const place = await findPlace(session, { datastore, folder: vmFolder, pool, network }, signal);
  const planned = opening.use(new MachineUpload(session, server, place, machine));
  await planned.check(signal);
  const held = opening.move();
  return {
    async upload(outputs, uploadSignal) {
      const read = readerOf(outputs, context);
      const onDisk = (label: string): void => context.output.note(`uploading ${label} to datastore ${datastore}`);
      const { file, leftOut, uploadedBytes, keptBytes } = await planned.upload(read, onDisk, uploadSignal);
      const kept = keptBytes === 0 ? '' : `, ${formatBytes(keptBytes)} were there from an earlier try`;
      return [
        `created as ${name} at ${session.where}, powered off: ${file} (${formatBytes(uploadedBytes)} uploaded${kept})`,
        ...leftOut.map((what) => `the new machine is without ${what}`),
      ];
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Says from time to time how far it came. */
function readerOf(outputs: readonly RestoredOutput[], { output }: CommandContext): ReadDisk {
  let toldAt = performance.now();
  return async (label, offset, into, signal) => {
    const found = outputs.find(({ disk }) => disk.label === label);
    if (found === undefined) throw new RangeError(`disk ${label} was not restored`);
    if (performance.now() - toldAt > noteEveryMs) {
      toldAt = performance.now();
      output.note(`uploading ${label}: ${formatBytes(offset)} of ${formatBytes(found.disk.capacityBytes)}`);
    }
    await found.sink.read(offset, into, signal);
  };
}

function checked(options: VsphereOptions): { readonly vsphere: string | undefined; readonly datastore: string } {
  const { vsphere, datastore, vmFolder, pool, disk } = options;
  if (vsphere === undefined) {
    const given = { '--datastore': datastore, '--vm-folder': vmFolder, '--pool': pool };
    const first = Object.entries(given).find(([, value]) => value !== undefined);
    if (first !== undefined) throw new DefinitionImpossible(`${first[0]} is for --vsphere: say which source`);
    return { vsphere, datastore: '' };
  }
  if (disk !== undefined) throw new DefinitionImpossible('a machine is created with all its disks: leave out --disk');
  if (datastore === undefined) throw new DefinitionImpossible('--vsphere needs a --datastore for the files');
  return { vsphere, datastore };
}

function checkedName(options: VsphereOptions, point: OpenPoint): string {
  const name = nameOf(options, point);
  if (/[/\\%\n]/.test(name) || name.length > nameCharsMax || name.trim() === '')
    throw new DefinitionImpossible(
      `${JSON.stringify(name)} is no name for a machine: up to ${nameCharsMax} characters without / \\ % and line breaks`,
    );
  return name;
}

function sourceOf({ sources }: Config, name: string): VsphereServerConfig {
  const servers = sources.filter((each) => each.type === 'vsphere');
  const source = servers.find((each) => each.name === name);
  if (source !== undefined) return source;
  const names = servers.map((each) => each.name).join(', ') || 'none';
  throw new DefinitionImpossible(`the configuration has no source ${name} of vSphere: there is ${names}`);
}

async function capturedMachine({ point, machineId, reader }: From, name: string, signal: AbortSignal) {
  const { manifest } = point;
  const content = async (wanted: string): Promise<Uint8Array | null> => {
    const attachment = manifest.attachments.find((each) => each.name === wanted);
    return attachment === undefined ? null : await readAttachment(attachment, reader, signal);
  };
  const config = await content(machineConfigurationName);
  if (config === null)
    throw new DefinitionImpossible(
      `point ${point.point} of ${manifest.machineName} holds no configuration of vSphere, because it was not read through vSphere`,
    );
  const named = (...parts: readonly (string | Uint8Array)[]): string =>
    toHex(
      sha256(Buffer.concat([machineId, Buffer.from(String(point.point)), ...parts.map((part) => Buffer.from(part))])),
    ).slice(0, 8);
  return {
    contentName: named(name),
    config: parseSoapXml(new TextDecoder().decode(config), `the configuration that point ${point.point} holds`),
    nvram: await content(nvramName),
    disks: manifest.disks.map(({ label, capacityBytes, diskId }) => ({
      label,
      capacityBytes,
      contentId: named(diskId),
    })),
  };
}
