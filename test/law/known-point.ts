import { expect } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import { type AttachmentState, attachmentChunkBytes, type Manifest } from '../../replica/manifest.ts';
import { recordType } from '../../replica/segment.ts';
import { expand } from '../../restore/open-range.ts';
import type { ModelMachine } from '../fakes/model-machine.ts';
import type { SparseBytes } from '../fakes/sparse-bytes.ts';
import type { RigReader } from '../rig/rig-reader.ts';

/** What a machine was at one snapshot: the oracle that a restored point is compared with. */
export interface KnownPoint {
  readonly takenMs: number;
  readonly disks: ReadonlyMap<string, SparseBytes>;
  readonly excluded: readonly string[];
  readonly attachments: ReadonlyMap<string, Uint8Array>;
}

const signal = new AbortController().signal;

/** What the machine's newest snapshot froze. */
export function rememberSnapshot(machine: ModelMachine): KnownPoint {
  return {
    takenMs: machine.now(),
    disks: machine.newest,
    excluded: [...machine.excluded.keys()],
    attachments: new Map(machine.attachments),
  };
}

/** The law: restore(recovery point) equals the machine at that snapshot. */
export async function expectRestores(point: number, known: KnownPoint, reader: RigReader): Promise<Manifest> {
  const { manifest } = await reader.replica.openPoint(point, signal);
  expect(manifest.snapshotTimeMs).toBe(known.takenMs);
  expect(manifest.consistency).toBe('crash-consistent');
  expect(manifest.disks.map(({ label }) => label)).toEqual([...known.disks.keys()]);
  expect(manifest.excluded.map(({ label }) => label)).toEqual(known.excluded);
  for (const disk of manifest.disks) {
    const expected = known.disks.get(disk.label);
    expect(disk.capacityBytes).toBe(expected?.capacityBytes);
    expectSame(await reader.content(disk), expected?.bytes(), `point ${point}, disk ${disk.label}`);
  }
  expect(manifest.attachments.map(({ name }) => name)).toEqual([...known.attachments.keys()]);
  for (const attachment of manifest.attachments) {
    const bytes = await readAttachment(attachment, reader);
    expectSame(bytes, known.attachments.get(attachment.name), `point ${point}, ${attachment.name}`);
    expectSame(sha256(bytes), attachment.sha256, `hash of ${attachment.name}`);
  }
  return manifest;
}

/** Millions of bytes: a failing toEqual would print them all. */
function expectSame(actual: Uint8Array, expected: Uint8Array = new Uint8Array(), what: string): void {
  expect(actual.length, what).toBe(expected.length);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  expect.fail(`${what} differs from byte ${at} on (block ${Math.floor(at / 65_536)} of 64 KiB)`);
}

async function readAttachment(state: AttachmentState, reader: RigReader): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (const [index, { at, codec }] of state.chunks.entries()) {
    const plaintextLength = Math.min(attachmentChunkBytes, state.length - index * attachmentChunkBytes);
    const place = { firstBlock: index, blockCount: state.chunks.length, blockSize: attachmentChunkBytes };
    const binding = { type: recordType.attachment, codec, diskId: new Uint8Array(16), ...place, plaintextLength };
    const body = await reader.segments.readBody(at, binding, signal);
    chunks.push(expand(body, codec, plaintextLength, state.name));
  }
  return Buffer.concat(chunks);
}
