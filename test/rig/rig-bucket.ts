import {
  chmodSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { BlockMap } from '../../replica/block-map.ts';
import { segmentName } from '../../replica/names.ts';
import type { PageRef, Run } from '../../replica/page.ts';
import { openRepositorySalvage } from '../../replica/salvage-repository.ts';
import type { RecordAddress } from '../../replica/segment.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { readAttachment } from '../../restore/restore-attachments.ts';
import { restoreDisk } from '../../restore/restore-disk.ts';
import type { VerifyLevel, VerifyReport } from '../../restore/verify/finding.ts';
import { type VerifyOptions, verifyReplica } from '../../restore/verify/verify-replica.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { MemorySink } from './memory-sink.ts';
import type { ReplicaRig } from './replica-rig.ts';

export interface Layout {
  /** Parents first. */
  readonly pages: PageRef[];
  readonly runs: Run[];
  /** Of all attachments. */
  readonly chunks: readonly RecordAddress[];
}

/** A rig's bucket directory, or a copy of it, to damage file by file and to look at. */
export class RigBucket implements AsyncDisposable {
  readonly rig: ReplicaRig;
  readonly folder: string;
  readonly target: StorageTarget;

  readonly #isCopy: boolean;

  private constructor(rig: ReplicaRig, folder: string, target: StorageTarget, isCopy: boolean) {
    this.rig = rig;
    this.folder = folder;
    this.target = target;
    this.#isCopy = isCopy;
  }

  static of(rig: ReplicaRig): RigBucket {
    return new RigBucket(rig, join(rig.folder, 'bucket'), rig.target, false);
  }

  static async copyOf(rig: ReplicaRig): Promise<RigBucket> {
    const folder = mkdtempSync(join(tmpdir(), 'failkit-bucket-'));
    cpSync(join(rig.folder, 'bucket'), folder, { recursive: true });
    return new RigBucket(rig, folder, await openFilesystemTarget({ directory: folder }), true);
  }

  /** Names of objects, ascending. */
  names(part = ''): readonly string[] {
    const files = readdirSync(this.folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const paths = files.map((entry) => join(entry.parentPath, entry.name).slice(this.folder.length + 1));
    return paths.filter((path) => path.includes(part)).sort();
  }

  bytes(name: string): Uint8Array {
    return readFileSync(join(this.folder, name));
  }

  /** Flips one bit; negative positions count from the end. */
  flip(name: string, at: number): void {
    this.rewrite(name, (bytes) => {
      const position = at < 0 ? bytes.length + at : at;
      bytes[position] = (bytes[position] ?? 0) ^ 1;
      return bytes;
    });
  }

  rewrite(name: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const path = join(this.folder, name);
    chmodSync(path, 0o600);
    writeFileSync(path, change(readFileSync(path)));
  }

  remove(name: string): void {
    rmSync(join(this.folder, name));
  }

  truncate(name: string, bytes: number): void {
    const path = join(this.folder, name);
    chmodSync(path, 0o600);
    truncateSync(path, bytes);
  }

  async verify(
    level: VerifyLevel,
    options: Partial<VerifyOptions> & { readonly keyless?: boolean } = {},
  ): Promise<VerifyReport> {
    using replica = await this.openReplica(options.keyless === true ? 'keyless' : 'keys');
    const { restore } = this.rig.workers;
    const all = { level, points: null, chain: false, workers: restore, inFlightMax: 4, ...options };
    return await verifyReplica(replica, all, this.rig.signal);
  }

  async openReplica(keys: 'keys' | 'keyless' = 'keys'): Promise<OpenReplica> {
    const { rig } = this;
    const repo = await openRepositorySalvage(this.target, rootFingerprint(rig.root.publicKey), rig.signal);
    const providers = keys === 'keys' ? [rig.provider] : [];
    return await OpenReplica.open(repo, rig.machineId, providers, rig.signal, { salvage: true });
  }

  /** Everything of a point: its disks by label, its attachments by name. Rejects with the first thing that is wrong. */
  async restore(point: number): Promise<ReadonlyMap<string, Uint8Array>> {
    const { signal, workers } = this.rig;
    using replica = await this.openReplica();
    const { manifest } = await replica.openPoint(point, signal);
    using reader = new SegmentReader(replica.repo, this.rig.machineId, replica.keys);
    const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
    const tools = { reader, keys: replica.keys, workers: workers.restore, rangesInFlightMax: 1, progress };
    const content = new Map<string, Uint8Array>();
    for (const disk of manifest.disks) {
      const sink = new MemorySink(disk.capacityBytes);
      await restoreDisk(disk, sink, tools, signal);
      content.set(disk.label, sink.bytes);
    }
    for (const attachment of manifest.attachments)
      content.set(attachment.name, await readAttachment(attachment, reader, signal));
    return content;
  }

  /** Where the blocks and pages of a disk lie at a point. */
  async layout(point: number, label: string): Promise<Layout> {
    const { signal } = this.rig;
    using replica = await this.openReplica();
    const { manifest } = await replica.openPoint(point, signal);
    const disk = manifest.disks.find((candidate) => candidate.label === label);
    if (disk === undefined) throw new Error(`no disk ${label}`);
    using reader = new SegmentReader(replica.repo, this.rig.machineId, replica.keys);
    const layout: Layout = {
      pages: [],
      runs: [],
      chunks: manifest.attachments.flatMap(({ chunks }) => chunks.map(({ at }) => at)),
    };
    for await (const { ref, page } of new BlockMap(disk, disk.root, reader).pages(signal)) {
      layout.pages.push(ref);
      if ('runs' in page) layout.runs.push(...page.runs);
    }
    return layout;
  }

  segment(at: { readonly tenure: number; readonly number: number }): string {
    return segmentName(this.rig.machineId, at);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isCopy) return;
    await this.target[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
