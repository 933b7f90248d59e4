import { randomBytes } from 'node:crypto';
import type { DataKey } from '../crypto/data-key.ts';
import type { KeyContext } from '../crypto/key-provider.ts';
import {
  checkCommitment,
  commitmentBytes,
  digestBytes,
  hedgedSalt,
  openRecord,
  saltBytes,
  sealingKeys,
  sealRecordInto,
  sha256,
  tagBytes,
} from '../crypto/suite.ts';
import { ByteReader, ByteWriter, toHex } from './encoding.ts';
import { chainEntryName } from './names.ts';
import { type PageRef, parsePlace } from './page.ts';
import { type Codec, parseCodec, type RecordAddress } from './segment.ts';

/** What a recovery point says of its machine, sealed inside its publish entry: docs/format.md §8.1. */
export interface Manifest {
  readonly machineName: string;
  /** `image`, `kvm`, `vsphere`, `hyperv`. */
  readonly sourceKind: string;
  readonly snapshotTimeMs: number;
  readonly consistency: 'crash-consistent' | 'application-consistent' | 'inconsistent';
  readonly readBytes: number;
  readonly changedBytes: number;
  readonly uploadedBytes: number;
  readonly disks: readonly DiskState[];
  /** Disks left out: not empty means that the point is *partial*. */
  readonly excluded: readonly { readonly label: string; readonly reason: string }[];
  readonly attachments: readonly AttachmentState[];
  /** What a restore does not need, ascending by kind, each kind once. Absent: none. */
  readonly remarks?: readonly Remark[];
}

/** A reader keeps those of kinds that it does not know, and makes nothing of them. */
export interface Remark {
  /** 1: `flagKind`. */
  readonly kind: number;
  readonly value: Uint8Array;
}

export interface DiskState {
  /** 16 bytes; the same for all generations. */
  readonly diskId: Uint8Array;
  readonly label: string;
  /** From 1. */
  readonly generation: number;
  readonly blockSize: number;
  readonly capacityBytes: number;
  /** Why the whole disk was read; empty where change tracking told what to read. */
  readonly fullReadReason: string;
  /** Why this generation began. */
  readonly generationReason: string;
  readonly referencePoint: Uint8Array | null;
  /** `null`: the whole disk reads as zero. */
  readonly root: PageRef | null;
}

export interface AttachmentState {
  readonly name: string;
  readonly length: number;
  readonly sha256: Uint8Array;
  readonly chunks: readonly AttachmentChunk[];
}

export interface AttachmentChunk {
  readonly codec: Codec;
  readonly at: RecordAddress;
}

export const attachmentChunkBytes = 262_144;
/** What keeps a block map at five levels, and every field of a page's binding within 32 bits. */
const diskBlocksMax = 2 ** 26;
const attachmentName = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}$/;
const consistencies = ['crash-consistent', 'application-consistent', 'inconsistent'] as const;

/** A remark that says, as text, what was remarkable about the changes of this point: ransomware at work, or a runaway job? */
const flagKind = 1;

/** Why the point is flagged; null where it is not. */
export function flagOf({ remarks = [] }: Pick<Manifest, 'remarks'>): string | null {
  const flag = remarks.find(({ kind }) => kind === flagKind);
  return flag === undefined ? null : new TextDecoder().decode(flag.value);
}

export function flagged(manifest: Manifest, why: string): Manifest {
  const others = (manifest.remarks ?? []).filter(({ kind }) => kind !== flagKind);
  return { ...manifest, remarks: [{ kind: flagKind, value: new TextEncoder().encode(why) }, ...others] };
}

/** Where a manifest stands: what its key, its salt and its tag are bound to. */
export interface ManifestPlace {
  readonly context: KeyContext;
  readonly seq: number;
  readonly tenure: number;
}

/** Deterministic but for `random`. Throws FormatInvalid for a manifest that no reader would take. */
export function sealManifest(
  key: DataKey,
  saltKey: Uint8Array,
  place: ManifestPlace,
  manifest: Manifest,
  random: Uint8Array = randomBytes(saltBytes),
): Uint8Array {
  const plaintext = encodeManifest(manifest);
  parseManifest(plaintext, 'the new manifest');
  const unsalted = encodeHeader(place, new Uint8Array(saltBytes));
  const salt = hedgedSalt(saltKey, 'failkit/v1/manifest-salt', unsalted, [sha256(plaintext)], random);
  const header = encodeHeader(place, salt);
  using keys = sealingKeys(key, place.context, 'failkit/v1/manifest', header);
  const sealed = new Uint8Array(saltBytes + commitmentBytes + plaintext.length + tagBytes);
  sealed.set(salt, 0);
  sealed.set(keys.commitment, saltBytes);
  sealRecordInto(sealed.subarray(saltBytes + commitmentBytes), keys, 0, header, plaintext);
  return sealed;
}

export function openManifest(key: DataKey, place: ManifestPlace, sealed: Uint8Array): Manifest {
  const object = `${chainEntryName(place.context.machineId, place.seq)} manifest`;
  const reader = new ByteReader(object, sealed);
  const header = encodeHeader(place, reader.raw(saltBytes));
  const commitment = reader.raw(commitmentBytes);
  using keys = sealingKeys(key, place.context, 'failkit/v1/manifest', header);
  checkCommitment(keys, commitment, object);
  return parseManifest(openRecord(keys, 0, header, reader.raw(reader.remaining), object), object);
}

function encodeHeader(place: ManifestPlace, salt: Uint8Array): Uint8Array {
  const { repositoryId, machineId, epoch } = place.context;
  return new ByteWriter()
    .raw(repositoryId)
    .raw(machineId)
    .u64(place.seq)
    .u64(place.tenure)
    .u32(epoch)
    .raw(salt)
    .finish();
}

export function encodeManifest(manifest: Manifest): Uint8Array {
  const { remarks = [] } = manifest;
  // What older readers can read they get in their version.
  const version = remarks.length === 0 ? 1 : 2;
  const writer = new ByteWriter().u8(version).text(manifest.machineName).text(manifest.sourceKind);
  writer.varint(manifest.snapshotTimeMs).u8(consistencies.indexOf(manifest.consistency) + 1);
  writer.varint(manifest.readBytes).varint(manifest.changedBytes).varint(manifest.uploadedBytes);
  writer.varint(manifest.disks.length);
  for (const disk of manifest.disks) writeDisk(writer, disk);
  writer.varint(manifest.excluded.length);
  for (const { label, reason } of manifest.excluded) writer.text(label).text(reason);
  writer.varint(manifest.attachments.length);
  for (const attachment of manifest.attachments) writeAttachment(writer, attachment);
  if (version === 2) writer.varint(remarks.length);
  for (const { kind, value } of remarks) writer.varint(kind).bytes(value);
  return writer.finish();
}

function writeDisk(writer: ByteWriter, disk: DiskState): void {
  writer.raw(disk.diskId).text(disk.label).varint(disk.generation).varint(disk.blockSize).varint(disk.capacityBytes);
  writer.text(disk.fullReadReason).text(disk.generationReason);
  if (disk.referencePoint === null) writer.u8(0);
  else writer.u8(1).bytes(disk.referencePoint);
  if (disk.root === null) writer.u8(0);
  else writeAddress(writer.u8(1), disk.root).raw(disk.root.digest);
}

function writeAttachment(writer: ByteWriter, attachment: AttachmentState): void {
  writer.text(attachment.name).varint(attachment.length).raw(attachment.sha256);
  for (const chunk of attachment.chunks) writeAddress(writer.u8(chunk.codec), chunk.at);
}

function writeAddress(writer: ByteWriter, at: RecordAddress): ByteWriter {
  return writer.varint(at.tenure).varint(at.number).varint(at.record).varint(at.offset).varint(at.length);
}

export function parseManifest(bytes: Uint8Array, object: string): Manifest {
  const reader = new ByteReader(object, bytes);
  const version = reader.u8();
  if (version !== 1 && version !== 2) throw reader.invalid('unknown manifest version', 0);
  const machineName = reader.text();
  const sourceKind = reader.text();
  const snapshotTimeMs = reader.varint();
  const consistency = consistencies[reader.u8() - 1];
  if (consistency === undefined) throw reader.invalid('unknown consistency', reader.offset - 1);
  const readBytes = reader.varint();
  const changedBytes = reader.varint();
  const uploadedBytes = reader.varint();
  const disks = Array.from({ length: reader.count(26) }, () => readDisk(reader));
  const excluded = Array.from({ length: reader.count(2) }, () => ({ label: reader.text(), reason: reader.text() }));
  const attachments = Array.from({ length: reader.count(34) }, () => readAttachment(reader));
  const remarks = version === 1 ? null : readRemarks(reader);
  reader.end();
  requireUnique(
    reader,
    disks.map((disk) => toHex(disk.diskId)),
    'disk id',
  );
  requireUnique(
    reader,
    [...disks, ...excluded].map((disk) => disk.label),
    'disk label',
  );
  requireUnique(
    reader,
    attachments.map((attachment) => attachment.name),
    'attachment name',
  );
  return {
    machineName,
    sourceKind,
    snapshotTimeMs,
    consistency,
    readBytes,
    changedBytes,
    uploadedBytes,
    disks,
    excluded,
    attachments,
    ...(remarks !== null && { remarks }),
  };
}

function readRemarks(reader: ByteReader): readonly Remark[] {
  const start = reader.offset;
  const count = reader.count(2);
  if (count === 0) throw reader.invalid('a manifest of version 2 without remarks', start);
  const remarks: Remark[] = [];
  for (let i = 0; i < count; i++) {
    const at = reader.offset;
    const kind = reader.varint();
    if (kind <= (remarks.at(-1)?.kind ?? 0)) throw reader.invalid('remarks out of order', at);
    const value = kind === flagKind ? new TextEncoder().encode(reader.text()) : reader.bytes().slice();
    if (value.length === 0) throw reader.invalid('an empty remark', at);
    remarks.push({ kind, value });
  }
  return remarks;
}

function readDisk(reader: ByteReader): DiskState {
  const diskId = reader.raw(16).slice();
  const label = reader.text();
  const generation = reader.varint();
  const start = reader.offset;
  const blockSize = reader.varint();
  if (blockSize < 65_536 || blockSize > 1_048_576 || (blockSize & (blockSize - 1)) !== 0) {
    throw reader.invalid(`a block size of ${blockSize}`, start);
  }
  const capacityBytes = reader.varint();
  if (capacityBytes > blockSize * diskBlocksMax) throw reader.invalid(`a disk of ${capacityBytes} bytes`, start);
  const fullReadReason = reader.text();
  const generationReason = reader.text();
  const referencePoint = reader.flag() ? reader.bytes().slice() : null;
  const root = reader.flag() ? { ...readAddress(reader), digest: reader.raw(digestBytes).slice() } : null;
  return {
    diskId,
    label,
    generation,
    blockSize,
    capacityBytes,
    fullReadReason,
    generationReason,
    referencePoint,
    root,
  };
}

function readAttachment(reader: ByteReader): AttachmentState {
  const start = reader.offset;
  const name = reader.text();
  // A restorer makes a file of this name.
  if (!attachmentName.test(name)) throw reader.invalid('an attachment name that is no plain file name', start);
  const length = reader.varint();
  const digest = reader.raw(32).slice();
  const count = Math.ceil(length / attachmentChunkBytes);
  if (count * 6 > reader.remaining) throw reader.invalid('an attachment longer than its chunks');
  const chunks = Array.from({ length: count }, () => ({ codec: parseCodec(reader), at: readAddress(reader) }));
  return { name, length, sha256: digest, chunks };
}

function readAddress(reader: ByteReader): RecordAddress {
  const tenure = reader.varint();
  const number = reader.varint();
  return { tenure, number, ...parsePlace(reader) };
}

function requireUnique(reader: ByteReader, names: readonly string[], what: string): void {
  if (new Set(names).size !== names.length) throw reader.invalid(`a ${what} that occurs twice`);
}
