import { SourceNotFound } from '../errors.ts';
import type { Attachment, MachineSnapshot, SnapshotOptions } from '../hypervisor.ts';
import { captureConfiguration } from './capture-configuration.ts';
import { captureNvram } from './capture-nvram.ts';
import { openDatastoreReader } from './datastore/datastore-reader.ts';
import { findDatacenter } from './datastore/find-datacenter.ts';
import type { DiskReader, SnapshotDisk } from './disk-reader.ts';
import { enableTracking } from './enable-tracking.ts';
import { disksOf, settingOf, type VsphereDisk } from './machine-disks.ts';
import { readMachine } from './machine-state.ts';
import { makeWay } from './make-way.ts';
import { OpenReaders } from './open-readers.ts';
import { pause } from './pause.ts';
import type { VsphereReferencePoint } from './reference-point.ts';
import { requireRoom } from './require-room.ts';
import { takeSnapshot } from './take-snapshot.ts';
import { openVddkReader } from './vddk/vddk-reader.ts';
import { property, readObject } from './vim25/properties.ts';
import { childOf, childrenOf, type Reference, textOf } from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';
import { vsphereBlockSource } from './vsphere-disk-source.ts';
import {
  isFault,
  isUnheard,
  VsphereAnswerInvalid,
  VsphereSnapshotGone,
  VsphereSnapshotStuck,
  VsphereUntrusted,
} from './vsphere-errors.ts';
import type { VsphereMachine } from './vsphere-machine.ts';
import { chooseDisks, enterSite, refuseUnusable, type VsphereSite } from './vsphere-site.ts';

/** One cycle: make way, track, take the snapshot, read from it, remove it and wait until it is gone. */

/** After the last reader is gone; merging takes as long as it takes, and Ctrl-C twice ends the wait. */
const cleanUpTimeoutMs = 6 * 3600 * 1000;
/** A vCenter takes some minutes to start. */
const restartPausesMs = [1_000, 5_000, 15_000, 60_000, 120_000, 300_000];

export async function snapshotByVsphere(
  session: VimSession,
  machine: VsphereMachine,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  await using opening = new AsyncDisposableStack();
  const site = await enterSite(session, machine, signal);
  const before = await makeWay(site, signal);
  refuseUnusable(machine, before);
  await requireRoom(site, before, signal);
  // Whatever becomes of this run, no snapshot of ours stays: also one that was asked for and never heard of.
  opening.defer(() => cleanUp(site));
  const state = await enableTracking(site, before, signal);
  const { takenAt, entry } = await takeSnapshot(site, state, options.quiesce, signal);
  const hadOthers = state.snapshots.length > 0;
  const frozen = await readFrozen(site, entry.ref, hadOthers, signal);
  const { chosen, excluded } = chooseDisks(machine, frozen.disks);
  if (chosen.length === 0) throw new SourceNotFound(`machine ${machine.name} has no disk that can be read`);
  // Where tracking began above another snapshot, vSphere's list of what was ever written may lack what is in that: ours began above none.
  const listsWritten = machine.reads === 'datastore' && !hadOthers && before.tracking === 'off';
  // Disposed before the snapshot is removed, for it was opened later.
  const readers = opening.use(new OpenReaders());
  const sources = chosen.map((disk) => {
    const reader = (now: AbortSignal) => readers.hold(disk.key, () => openReader(site, entry.ref, disk, now));
    return vsphereBlockSource({ site, snapshot: entry.ref, disk, point: frozen.pointOf(disk), listsWritten, reader });
  });
  const held = opening.move();
  return {
    takenAt,
    disks: sources,
    excluded,
    attachments: frozen.attachments,
    frozenMs: null,
    async settleConsistency(settleSignal) {
      await requirePresent(site, entry.ref, settleSignal);
      return entry.quiesced ? 'application-consistent' : 'crash-consistent';
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Also where vCenter restarts just then: what was asked for before may have happened, and is looked at anew. */
async function cleanUp(site: VsphereSite): Promise<void> {
  const limit = AbortSignal.timeout(cleanUpTimeoutMs);
  for (let attempt = 0; ; attempt++) {
    try {
      await makeWay(site, limit);
      return;
    } catch (error) {
      // A machine that was deleted meanwhile has no snapshots any more.
      if (isFault(error, 'ManagedObjectNotFound')) return;
      if (limit.aborted)
        throw new VsphereSnapshotStuck(
          `machine ${site.machine.name}: its snapshot was not gone after ${cleanUpTimeoutMs / 3_600_000} hours: the next run goes on with it`,
          { cause: error },
        );
      const pauseMs = restartPausesMs[attempt];
      if (!isUnheard(error) || pauseMs === undefined) throw error;
      await pause(pauseMs, limit);
    }
  }
}

interface Frozen {
  readonly disks: readonly VsphereDisk[];
  readonly attachments: readonly Attachment[];
  pointOf(disk: VsphereDisk): VsphereReferencePoint | null;
}

/** By the snapshot's own configuration: that of the machine may have changed since. */
async function readFrozen(
  site: VsphereSite,
  snapshot: Reference,
  hadOthers: boolean,
  signal: AbortSignal,
): Promise<Frozen> {
  const { session, ref } = site;
  const config = property(await readObject(session, snapshot, ['config'], signal), 'config');
  if (config === null) throw new VsphereAnswerInvalid(`${session.where} says nothing of the disks of ${snapshot.id}`);
  const devices = childrenOf(childOf(config, 'hardware'), 'device');
  const { about } = await session.content(signal);
  const instanceUuid = textOf(childOf(config, 'instanceUuid'));
  const machineGeneration = settingOf(childrenOf(config, 'extraConfig'), 'vm.genid');
  return {
    disks: disksOf(devices),
    attachments: captureConfiguration(config, about.product, ref, await captureNvram(site, config, signal)),
    pointOf: ({ changeId, identity, capacityBytes }) =>
      changeId === null
        ? null
        : {
            ...{ changeId, identity, capacityBytes, instanceUuid, server: about.instanceUuid, machineGeneration },
            hadOthers,
          },
  };
}

async function openReader(
  { session, machine, ref }: VsphereSite,
  snapshot: Reference,
  { file, capacityBytes }: VsphereDisk,
  signal: AbortSignal,
): Promise<DiskReader> {
  const { server, reads } = machine;
  const disk: SnapshotDisk = { machineRef: ref.id, snapshotRef: snapshot.id, file, capacityBytes };
  if (reads === 'datastore')
    return await openDatastoreReader(session, server, disk, await findDatacenter(session, ref, signal), signal);
  const { certificate } = session;
  if (certificate === null)
    throw new VsphereUntrusted(`${session.where} was not connected to: there is no certificate`);
  const { address, user, password, vddk } = server;
  return await openVddkReader(vddk, { ...address, user, password, certificate: certificate.raw }, disk, signal);
}

/** A snapshot that somebody removed meanwhile was merged into what we read from. */
async function requirePresent(
  { session, ref, machine }: VsphereSite,
  snapshot: Reference,
  signal: AbortSignal,
): Promise<void> {
  const { snapshots } = await readMachine(session, ref, signal);
  if (snapshots.some((each) => each.ref.id === snapshot.id)) return;
  throw new VsphereSnapshotGone(`machine ${machine.name}: somebody removed our snapshot while it was read`);
}
