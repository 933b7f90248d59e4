import type { Element } from '@xmldom/xmldom';
import { DatastoreUnwritable } from '../datastore/datastore-errors.ts';
import { beside, type DatastoreFile, folderPath, nameOf } from '../datastore/datastore-file.ts';
import { writeDescriptor } from '../datastore/disk-descriptor.ts';
import { FolderClient } from '../datastore/folder-client.ts';
import { isEncrypted } from '../machine-disks.ts';
import { missingPrivileges, toCreate } from '../privileges.ts';
import { property, readObject } from '../vim25/properties.ts';
import {
  booleanTag,
  childOf,
  childText,
  type Reference,
  referenceOf,
  referenceTag,
  roomOf,
  tag,
} from '../vim25/soap-xml.ts';
import { runTask } from '../vim25/tasks.ts';
import type { VimSession } from '../vim25/vim-session.ts';
import {
  isFault,
  isUnheard,
  VsphereAnswerInvalid,
  VsphereDenied,
  VsphereNameTaken,
  VspherePlaceInvalid,
  VsphereUnreachable,
} from '../vsphere-errors.ts';
import type { VsphereServer } from '../vsphere-machine.ts';
import type { VspherePlace } from './find-place.ts';
import { machineSpec } from './machine-spec.ts';

/**
 * A restored machine: its disks become files of a datastore, and last of all the machine is created. Its folder is named after its content,
 * so that a try that was killed is gone on with: a disk is whole once its descriptor is there, and the machine once it has a `.vmx`.
 */

export interface MachineToUpload {
  readonly name: string;
  /** 8 hex digits that stand for the recovery point. */
  readonly contentName: string;
  /** A captured VirtualMachineConfigInfo. */
  readonly config: Element;
  readonly nvram: Uint8Array | null;
  readonly disks: readonly DiskToUpload[];
}

export interface DiskToUpload {
  readonly label: string;
  readonly capacityBytes: number;
  /** 8 hex digits that stand for its content. */
  readonly contentId: string;
}

/** Fills `into` exactly. */
export type ReadDisk = (label: string, offset: number, into: Uint8Array, signal: AbortSignal) => Promise<void>;

export interface UploadedMachine {
  /** `[datastore] folder/name.vmx`. */
  readonly file: string;
  readonly leftOut: readonly string[];
  readonly uploadedBytes: number;
  /** Of disks that an earlier try had uploaded. */
  readonly keptBytes: number;
}

const sectorBytes = 512;
const pieceBytes = 256 * 1024;
const descriptorBytesMax = 64 * 1024;
const createTimeoutMs = 30 * 60 * 1000;
/** Of the configuration, the log and the swap file's entry; what the swap file itself takes is needed at the start. */
const spareBytes = 64 * 1024 * 1024;

export class MachineUpload implements Disposable {
  readonly #session: VimSession;
  readonly #place: VspherePlace;
  readonly #machine: MachineToUpload;
  readonly #files: FolderClient;

  constructor(session: VimSession, server: VsphereServer, place: VspherePlace, machine: MachineToUpload) {
    this.#session = session;
    this.#place = place;
    this.#machine = machine;
    this.#files = new FolderClient(session, server);
  }

  /** Before anything is restored. Throws VsphereNameTaken, VsphereDenied, DatastoreUnwritable, ConfigurationUnusable. */
  async check(signal: AbortSignal): Promise<void> {
    this.#spec();
    await this.#requireNew(signal);
    await this.#requirePrivileges(signal);
    await this.#requireSpace(signal);
  }

  /** Throws what `check` does, VsphereDenied, VsphereRefused, and what `read` throws. */
  async upload(read: ReadDisk, onDisk: (label: string) => void, signal: AbortSignal): Promise<UploadedMachine> {
    // Again: since it was checked the disks were restored, which takes hours, and somebody's guest may have written to these files.
    await this.#requireNew(signal);
    await this.#makeFolder(signal);
    let [uploadedBytes, keptBytes] = [0, 0];
    for (const disk of this.#machine.disks) {
      if (await this.#isWhole(disk, signal)) {
        keptBytes += disk.capacityBytes;
        continue;
      }
      onDisk(disk.label);
      await this.#uploadDisk(disk, read, signal);
      uploadedBytes += disk.capacityBytes;
    }
    const nvram = this.#nvram;
    if (nvram !== null) await this.#put(beside(this.#vmx, this.#nvramName), nvram, signal);
    const { spec, leftOut } = this.#spec();
    await this.#create(spec, signal);
    return { file: nameOf(this.#vmx), leftOut, uploadedBytes, keptBytes };
  }

  [Symbol.dispose](): void {
    this.#files[Symbol.dispose]();
  }

  get #base(): string {
    return this.#machine.name.replaceAll(/[^A-Za-z0-9._-]/g, '_');
  }

  get #folder(): string {
    return `${this.#base}-${this.#machine.contentName}`;
  }

  get #vmx(): DatastoreFile {
    return { datastore: this.#place.datastore.name, path: `${this.#folder}/${this.#base}.vmx` };
  }

  /** What earlier releases captured of an encrypted machine is sealed: no other machine could start with it. */
  get #nvram(): Uint8Array | null {
    const { config, nvram } = this.#machine;
    return isEncrypted(config) ? null : nvram;
  }

  get #nvramName(): string {
    return `${this.#base}.nvram`;
  }

  #descriptorOf({ label }: DiskToUpload): DatastoreFile {
    return beside(this.#vmx, `${label.replaceAll(/[^A-Za-z0-9]/g, '-')}.vmdk`);
  }

  #flatOf(disk: DiskToUpload): DatastoreFile {
    const descriptor = this.#descriptorOf(disk);
    return { ...descriptor, path: descriptor.path.replace(/\.vmdk$/, '-flat.vmdk') };
  }

  #spec() {
    const { name, config, disks } = this.#machine;
    return machineSpec(config, {
      name,
      file: nameOf(this.#vmx),
      nvramFile: this.#nvram === null ? null : this.#nvramName,
      disks: disks.map((disk) => ({ ...disk, file: nameOf(this.#descriptorOf(disk)) })),
      network: this.#place.network,
    });
  }

  async #requireNew(signal: AbortSignal): Promise<void> {
    const { name } = this.#machine;
    if ((await this.#findMachine(signal)) !== null)
      throw new VsphereNameTaken(`${this.#session.where} has a machine ${name} there already: choose another --name`);
    if ((await this.#find(this.#vmx, signal)) !== null)
      throw new VsphereNameTaken(
        `${nameOf(this.#vmx)} is there: this point was restored there before. Register it, remove its folder, or choose another --name`,
      );
  }

  async #findMachine(signal: AbortSignal): Promise<Reference | null> {
    const { searchIndex } = await this.#session.content(signal);
    const parameters = [referenceTag('entity', this.#place.folder), tag('name', this.#machine.name)];
    const response = await this.#session.call('FindChild', searchIndex, parameters, signal, { repeatable: true });
    return referenceOf(childOf(response, 'returnval'));
  }

  async #isOurs(machine: Reference | null, signal: AbortSignal): Promise<boolean> {
    if (machine === null) return false;
    const file = property(await readObject(this.#session, machine, ['config.files'], signal), 'config.files');
    return childText(file, 'vmPathName') === nameOf(this.#vmx);
  }

  /** A server that does not tell what the account may do is asked to do it. */
  async #requirePrivileges(signal: AbortSignal): Promise<void> {
    const { folder, pool, datastore, network } = this.#place;
    const wanted: readonly (readonly [string, Reference | null, readonly string[]])[] = [
      ['the folder', folder, toCreate.folder],
      ['the resource pool', pool, toCreate.pool],
      [`datastore ${datastore.name}`, datastore.ref, toCreate.datastore],
      ['the network', network?.ref ?? null, toCreate.network],
    ];
    for (const [what, ref, privileges] of wanted) {
      if (ref === null) continue;
      const missing = (await missingPrivileges({ session: this.#session, ref }, privileges, signal)) ?? [];
      if (missing.length > 0)
        throw new VsphereDenied(`${this.#session.where}: on ${what} the account lacks ${missing.join(', ')}`);
    }
  }

  async #requireSpace(signal: AbortSignal): Promise<void> {
    const { datastore } = this.#place;
    let neededBytes = spareBytes;
    for (const disk of this.#machine.disks) if (!(await this.#isWhole(disk, signal))) neededBytes += disk.capacityBytes;
    const freeBytes = await this.#freeBytes(signal);
    if (freeBytes < neededBytes)
      throw new DatastoreUnwritable(
        `datastore ${datastore.name} has ${freeBytes} bytes left, and the machine's disks need ${neededBytes}: all of each, also what is zero`,
      );
  }

  async #freeBytes(signal: AbortSignal): Promise<number> {
    const store = await readObject(this.#session, this.#place.datastore.ref, ['summary'], signal);
    return roomOf(childOf(property(store, 'summary'), 'freeSpace')) ?? 0;
  }

  /** A folder of this name is of an earlier try at the same point. */
  async #makeFolder(signal: AbortSignal): Promise<void> {
    const { fileManager } = await this.#session.content(signal);
    if (fileManager === null)
      throw new VspherePlaceInvalid(`${this.#session.where} lets nobody make folders on datastores`);
    const parameters = [
      tag('name', `[${this.#place.datastore.name}] ${this.#folder}`),
      referenceTag('datacenter', this.#place.datacenter),
      booleanTag('createParentDirectories', false),
    ];
    try {
      await this.#session.call('MakeDirectory', fileManager, parameters, signal, { repeatable: true });
    } catch (error) {
      if (!isFault(error, 'FileAlreadyExists')) throw error;
    }
  }

  async #isWhole(disk: DiskToUpload, signal: AbortSignal): Promise<boolean> {
    const found = await this.#find(this.#descriptorOf(disk), signal);
    return found !== null && new TextDecoder().decode(found) === this.#descriptor(disk);
  }

  #descriptor(disk: DiskToUpload): string {
    return writeDescriptor({
      flatFile: this.#flatOf(disk).path.replace(/^.*\//, ''),
      capacityBytes: disk.capacityBytes,
      bus: disk.label.replace(/\d.*$/, ''),
      hardwareVersion: childText(this.#machine.config, 'version'),
      contentId: disk.contentId,
    });
  }

  async #uploadDisk(disk: DiskToUpload, read: ReadDisk, signal: AbortSignal): Promise<void> {
    const flat = this.#flatOf(disk);
    const bytes = Math.ceil(disk.capacityBytes / sectorBytes) * sectorBytes;
    const content = () => pieces(disk, bytes, read, signal);
    try {
      await this.#files.put(this.#pathOf(flat), nameOf(flat), bytes, content, signal);
    } catch (error) {
      const mayBeFull = error instanceof VsphereUnreachable || error instanceof DatastoreUnwritable;
      if (!mayBeFull || (await this.#freeBytes(signal)) >= spareBytes) throw error;
      throw new DatastoreUnwritable(`datastore ${this.#place.datastore.name} is full: ${nameOf(flat)} is not whole`, {
        cause: error,
      });
    }
    const { fileBytes } = await this.#files.get(this.#pathOf(flat), nameOf(flat), 0, 1, signal);
    if (fileBytes !== bytes)
      throw new DatastoreUnwritable(
        `${nameOf(flat)} has ${fileBytes} bytes after ${bytes} were sent: is the datastore full?`,
      );
    await this.#put(this.#descriptorOf(disk), new TextEncoder().encode(this.#descriptor(disk)), signal);
  }

  async #create(spec: ReturnType<typeof tag>, signal: AbortSignal): Promise<void> {
    const { folder, pool } = this.#place;
    const parameters = [spec, referenceTag('pool', pool)];
    try {
      await runTask(this.#session, 'CreateVM_Task', folder, parameters, createTimeoutMs, signal);
    } catch (error) {
      // It is never asked for twice: it may be there. Somebody else's of that name is not it.
      if (!isUnheard(error) || !(await this.#isOurs(await this.#findMachine(signal), signal))) throw error;
    }
    if ((await this.#findMachine(signal)) === null)
      throw new VsphereAnswerInvalid(`${this.#session.where} created ${this.#machine.name}, and does not list it`);
  }

  async #find(file: DatastoreFile, signal: AbortSignal): Promise<Uint8Array | null> {
    return await this.#files.find(this.#pathOf(file), nameOf(file), descriptorBytesMax, signal);
  }

  async #put(file: DatastoreFile, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const content = async function* () {
      yield bytes;
    };
    await this.#files.put(this.#pathOf(file), nameOf(file), bytes.length, content, signal);
  }

  #pathOf(file: DatastoreFile): string {
    return folderPath(file, this.#place.datacenterPath);
  }
}

/** Zeroes follow a disk that ends inside a sector. */
async function* pieces(
  { label, capacityBytes }: DiskToUpload,
  bytes: number,
  read: ReadDisk,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes; offset += pieceBytes) {
    const piece = new Uint8Array(Math.min(pieceBytes, bytes - offset));
    await read(label, offset, piece.subarray(0, Math.max(0, Math.min(piece.length, capacityBytes - offset))), signal);
    yield piece;
  }
}
