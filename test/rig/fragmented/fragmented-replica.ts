import { createHash } from 'node:crypto';
import { MachineState } from '../../../agent/state/machine-state.ts';
import { recoveryWrapper } from '../../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import type { Birth } from '../../../replica/control.ts';
import { encodeKeyRecord, MachineKeys } from '../../../replica/key-record.ts';
import type { EpochKeys } from '../../../replica/key-ring.ts';
import { type Manifest, sealManifest } from '../../../replica/manifest.ts';
import { keyRecordName } from '../../../replica/names.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { Tenure } from '../../../replica/tenure.ts';
import type { ReplicaRig } from '../replica-rig.ts';
import { FragmentedMap, type FragmentedPage } from './fragmented-map.ts';
import { referencePointOf } from './scattered-disk.ts';

/** Publishes a point with a fragmented map, whose segments are not there, and fills the local state as the run would have left it. */

const pagesAtOnce = 8_192;
const segmentBytes = 8 * 2 ** 20;

export interface FragmentedDisk {
  readonly label: string;
  readonly diskId: Uint8Array;
  readonly blockSize: number;
  readonly blockCount: number;
}

/** `pages` are those that the local state is to hold: all, or those that the runs to come will ask for. */
export async function publishFragmented(
  rig: ReplicaRig,
  disk: FragmentedDisk,
  pages: (map: FragmentedMap) => Iterable<FragmentedPage>,
): Promise<FragmentedMap> {
  const repo = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), rig.signal);
  const { diskId, blockSize, label } = disk;
  using state = new MachineState(rig.stateFolder, 'machine');
  state.claim(repo.repository.repositoryId, rig.machineId);
  state.setTrust(repo.trust);
  const machineKeys = MachineKeys.generate();
  state.keepMachineKeys(machineKeys);
  const { keys, keyRecordDigest } = await firstEpoch(rig, machineKeys);
  let manifest: Manifest | null = null;
  const mark = {
    pending: (head: { seq: number; digest: Uint8Array }): void => {
      if (manifest !== null) state.stagePoint(head.digest, manifest, null);
      state.addPendingHead(head);
    },
    confirmed: (head: { seq: number; digest: Uint8Array }): void => {
      if (manifest !== null) state.settlePoint([]);
      state.setHead(head);
    },
  };
  const tenure = await Tenure.begin(
    repo,
    rig.machineId,
    null,
    { epoch: 1, keyRecordDigest, adopt: false },
    { agent: rig.agent, mark, now: rig.now },
    rig.signal,
  );
  const geometry = { diskId, blockSize, capacityBytes: blockSize * disk.blockCount };
  const map = new FragmentedMap(geometry, tenure.id);
  for (let i = 0; i < map.segmentCount; i++) tenure.nextSegment();
  fillState(state, map, pages(map));
  const published = manifestOf(label, map);
  manifest = published;
  await tenure.publish(
    {
      epoch: 1,
      births: birthsOf(map),
      deaths: [],
      immutableUntilMs: 0,
      sealManifest: (seq, id) =>
        sealManifest(keys.key, machineKeys.saltKey, { context: keys.context, seq, tenure: id }, published),
    },
    rig.signal,
  );
  keys.key[Symbol.dispose]();
  return map;
}

async function firstEpoch(
  rig: ReplicaRig,
  machineKeys: MachineKeys,
): Promise<{ readonly keys: EpochKeys; readonly keyRecordDigest: Uint8Array }> {
  const repo = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), rig.signal);
  const context = { repositoryId: repo.repository.repositoryId, machineId: rig.machineId, epoch: 1 };
  const { key, wrapped } = await rig.provider.generateDataKey(context, rig.signal);
  const recovery = await recoveryWrapper(repo.trust.recoveryPublicKey).wrap(key, context, rig.signal);
  const createdMs = rig.now();
  const fields = { context, revision: 0, createdMs, wraps: [wrapped, recovery] };
  const record = encodeKeyRecord(fields, key, machineKeys, rig.agent);
  const digest = createHash('sha256').update(record).digest();
  await rig.target.putIfAbsent(keyRecordName(rig.machineId, 1, 0), record, { sha256: digest }, rig.signal);
  return { keys: { createdMs, context, key, machineKeys }, keyRecordDigest: digest };
}

function fillState(state: MachineState, map: FragmentedMap, pages: Iterable<FragmentedPage>): void {
  const batch: [Uint8Array, Uint8Array][] = [];
  for (const page of pages) {
    batch.push([map.ref(page).digest, map.encode(page)]);
    if (batch.length >= pagesAtOnce) state.stagePages(batch.splice(0));
  }
  state.stagePages(batch);
}

/** In the order of their digests, as the local database keeps them: others would be written all over it. */
export function* allPages(map: FragmentedMap): Generator<FragmentedPage> {
  const order = Float64Array.from({ length: map.pageCount }, (_, number) => {
    const [a = 0, b = 0, c = 0] = map.ref(map.page(number)).digest;
    return (a * 65_536 + b * 256 + c) * 2 ** 24 + number;
  }).sort();
  for (const place of order) yield map.page(place % 2 ** 24);
}

/** Those that changes of these blocks replace. */
export function* pathsOf(map: FragmentedMap, blocks: Iterable<number>): Generator<FragmentedPage> {
  const given = new Set<number>();
  for (const block of blocks) {
    for (const page of map.pathOf(block)) {
      const number = map.numberOf(page);
      if (!given.has(number)) yield page;
      given.add(number);
    }
  }
}

function birthsOf(map: FragmentedMap): readonly Birth[] {
  return map.unitsBySegment().map(({ id, units }) => ({
    ...id,
    units,
    size: segmentBytes - (id.number % 4096),
    sha256: createHash('sha256').update(`${id.tenure}.${id.number}`).digest(),
  }));
}

function manifestOf(label: string, map: FragmentedMap): Manifest {
  return {
    machineName: 'machine',
    sourceKind: 'image',
    snapshotTimeMs: Date.now(),
    consistency: 'crash-consistent',
    readBytes: map.geometry.capacityBytes,
    changedBytes: map.geometry.capacityBytes,
    uploadedBytes: map.segmentCount * segmentBytes,
    disks: [
      {
        ...map.geometry,
        label,
        generation: 1,
        fullReadReason: '',
        generationReason: 'first recovery point with this disk',
        referencePoint: referencePointOf(0),
        root: map.ref({ level: map.level, index: 0 }),
      },
    ],
    excluded: [],
    attachments: [],
  };
}
