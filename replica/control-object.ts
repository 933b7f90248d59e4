import { sha256 } from '../crypto/suite.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { type ChainEntry, inlineControlBytesMax, type PlacedControl } from './chain-entry.ts';
import { isSummaryDue } from './chain-state.ts';
import { type Control, encodeControl, parseControl } from './control.ts';
import { ByteReader, ByteWriter, sameBytes } from './encoding.ts';
import { chainEntryName, controlName } from './names.ts';
import { putOnce } from './put-once.ts';

/** Control data inline or as an object of its own: docs/format.md §8.2. */

export interface ControlOwner {
  readonly repositoryId: Uint8Array;
  readonly machineId: Uint8Array;
  readonly seq: number;
}

/** The object that an entry refers to is not the one that was signed for. */
export class ControlTampered extends Error {
  readonly code = 'CONTROL_TAMPERED';
  override readonly name = 'ControlTampered';
}

/** Puts large control data; the entry that names it comes after. */
export async function placeControl(
  target: StorageTarget,
  owner: ControlOwner,
  publish: boolean,
  control: Control,
  signal: AbortSignal,
): Promise<PlacedControl> {
  const shape = { publish, summary: isSummaryDue(owner.seq) };
  const content = encodeControl(control, shape);
  // An entry whose control data no reader takes would end the chain for good, so it is read before it is put.
  parseControl(content, shape, `${chainEntryName(owner.machineId, owner.seq)} control`);
  if (content.length <= inlineControlBytesMax) return { inline: content };
  const object = controlHeader(owner).raw(content).finish();
  const digest = sha256(object);
  await putOnce(target, controlName(owner.machineId, owner.seq, digest), object, digest, signal);
  return { length: object.length, sha256: digest };
}

export async function readControl(target: StorageTarget, entry: ChainEntry, signal: AbortSignal): Promise<Control> {
  const shape = { publish: entry.body.type === 'publish', summary: isSummaryDue(entry.seq) };
  const { control } = entry;
  if ('inline' in control) {
    return parseControl(control.inline, shape, `${chainEntryName(entry.machineId, entry.seq)} control`);
  }
  const name = controlName(entry.machineId, entry.seq, control.sha256);
  const object = await target.get(name, null, signal);
  if (object.length !== control.length || !sameBytes(sha256(object), control.sha256)) {
    throw new ControlTampered(`${name}: is not the object that chain entry ${entry.seq} names: altered or replaced`);
  }
  const reader = new ByteReader(name, object);
  reader.expectRaw(controlHeader(entry).finish(), 'control header');
  return parseControl(reader.raw(reader.remaining), shape, name);
}

function controlHeader(owner: ControlOwner): ByteWriter {
  return new ByteWriter().ascii('FKCO').u16(1).raw(owner.repositoryId).raw(owner.machineId).u64(owner.seq);
}
