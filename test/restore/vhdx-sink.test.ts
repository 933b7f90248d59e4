import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { connectImages } from '../../hypervisors/image/image-connection.ts';
import type { ImageDisk } from '../../hypervisors/image/image-machine.ts';
import { openChain } from '../../hypervisors/vhdx/image-chain.ts';
import { ParentMissing } from '../../hypervisors/vhdx/image-errors.ts';
import { openLocalFile } from '../../hypervisors/vhdx/local-file.ts';
import { openVhdxSink } from '../../restore/sinks/vhdx-sink.ts';
import { madeChain } from '../hypervisors/vhdx/made-chain.ts';
import { contentOf } from '../hypervisors/vhdx/read-all.ts';
import { Random } from '../random.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { recordSyncs } from './recorded-syncs.ts';

const never = new AbortController().signal;

it('a chain of images is protected, and restored into one image that holds the same disk', async () => {
  await using rig = await ReplicaRig.create();
  const made = madeChain(new Random(11), { depth: 3, sectorBytes: 512 });
  for (const { name, bytes } of made.layers) writeFileSync(join(rig.folder, name), bytes);
  const disk: ImageDisk = { label: 'system', path: join(rig.folder, made.top.name), format: 'vhdx' };
  const connection = connectImages([{ name: 'machine', disks: [disk] }]);
  const { point, manifest } = await rig.protect(connection);
  expect(manifest.disks[0]?.capacityBytes).toBe(made.content.length);
  for (const { name, bytes } of made.layers) expect(bytes.equals(readFileSync(join(rig.folder, name)))).toBe(true);

  await using reader = await rig.open();
  const [state] = (await reader.replica.openPoint(point, rig.signal)).manifest.disks;
  if (state === undefined) throw new Error('no disk');
  const path = join(rig.folder, 'restored.vhdx');
  const options = { path, capacityBytes: made.content.length, force: false, contentName: 'x' };
  {
    await using sink = await openVhdxSink(options, never);
    const named = await recordSyncs(path, import.meta.filename, () => reader.restoreInto(state, sink));
    // Durable before it has its name: the file before, its folder after.
    expect(named).toEqual([false, true]);
  }
  await using chain = await openChain(path, { openFile: openLocalFile, onWindows: false }, never);
  if (chain === null) throw new Error(`there is no ${path}`);
  expect(Buffer.compare(await contentOf(chain), made.content)).toBe(0);
});

it('a chain whose base is gone is refused, and the message says where it was looked for', async () => {
  await using rig = await ReplicaRig.create();
  const made = madeChain(new Random(12), { depth: 2, sectorBytes: 4096 });
  for (const { name, bytes } of made.layers) writeFileSync(join(rig.folder, name), bytes);
  rmSync(join(rig.folder, 'layer-0.vhdx'));
  const disk: ImageDisk = { label: 'system', path: join(rig.folder, made.top.name), format: 'vhdx' };
  const outcome = rig.protect(connectImages([{ name: 'machine', disks: [disk] }]));
  await expect(outcome).rejects.toThrow(ParentMissing);
  await expect(outcome).rejects.toThrow(join(rig.folder, 'layer-0.vhdx'));
});
