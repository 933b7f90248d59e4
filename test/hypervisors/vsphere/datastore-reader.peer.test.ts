/** Against our own vCenter, which lets be read what a real one would: it proves nothing about a real one. */
import { randomFillSync, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDatastoreReader } from '../../../hypervisors/vsphere/datastore/datastore-reader.ts';
import { findDatacenter } from '../../../hypervisors/vsphere/datastore/find-datacenter.ts';
import { thumbprintOf } from '../../../hypervisors/vsphere/vim25/trusted-agent.ts';
import { type SessionSettings, VimSession } from '../../../hypervisors/vsphere/vim25/vim-session.ts';
import { startVcsim, type Vcsim, type VcsimDisk, vcsimNeeds } from '../../peers/vcsim.ts';

const needs = await vcsimNeeds();
const never = new AbortController().signal;
const machine = 'DC0_H0_VM0';

describe.skipIf(needs !== null)(needs ?? 'a datastore over HTTPS', () => {
  let vcsim: Vcsim;
  let server: SessionSettings;
  let session: VimSession;
  beforeAll(async () => {
    vcsim = await startVcsim();
    server = serverOf(vcsim);
    session = new VimSession(server);
  });
  afterAll(async () => {
    await session[Symbol.asyncDispose]();
    await vcsim[Symbol.asyncDispose]();
  });

  const openNewest = async ({ machineRef, key }: VcsimDisk) => {
    const point = (await vcsim.points(machine)).at(-1);
    const frozen = point?.disks.find((each) => each.key === key);
    if (point === undefined || frozen === undefined) throw new Error('there is no snapshot');
    const { file, capacityBytes } = frozen;
    const datacenter = await findDatacenter(session, { type: 'VirtualMachine', id: machineRef }, never);
    const disk = { machineRef, snapshotRef: point.snapshot, file, capacityBytes };
    return { reader: await openDatastoreReader(session, server, disk, datacenter, never), path: frozen.path };
  };
  const onlyDisk = async (): Promise<VcsimDisk> => {
    const [disk] = await vcsim.disks(machine);
    if (disk === undefined) throw new Error(`${machine} has no disk`);
    return disk;
  };

  it('reads the disk of the snapshot while the guest goes on writing', async () => {
    const disk = await onlyDisk();
    const content = randomFillSync(new Uint8Array(disk.capacityBytes));
    await writeFile(disk.live, content, { flag: 'r+' });
    const snapshot = await vcsim.addSnapshot(machine, 'ours');
    const { reader } = await openNewest(disk);
    await using guest = await open(disk.live, 'r+');
    await guest.write(new Uint8Array(1024 * 1024), 0, 1024 * 1024, 65_536);
    const read = new Uint8Array(disk.capacityBytes);
    await reader.read(0, read, never);
    expect(Buffer.compare(read, content)).toBe(0);
    const odd = new Uint8Array(70_001);
    await reader.read(99_999, odd, never);
    expect(Buffer.compare(odd, content.subarray(99_999, 170_000))).toBe(0);

    await vcsim.endSessions();
    await reader.read(5, odd, never);
    expect(Buffer.compare(odd, content.subarray(5, 70_006))).toBe(0);
    await vcsim.restart(700);
    await reader.read(6, odd, never);
    expect(Buffer.compare(odd, content.subarray(6, 70_007))).toBe(0);
    await reader[Symbol.asyncDispose]();
    await vcsim.removeSnapshot(machine, snapshot);
  });

  it("says that it can't where the disk already stood on somebody else's snapshot", async () => {
    const theirs = await vcsim.addSnapshot(machine, 'theirs');
    const ours = await vcsim.addSnapshot(machine, 'ours');
    await expect(openNewest(await onlyDisk())).rejects.toMatchObject({ code: 'DATASTORE_UNREADABLE' });
    await vcsim.removeSnapshot(machine, ours);
    await vcsim.removeSnapshot(machine, theirs);
  });

  it('says so when the snapshot is gone, for then the guest writes to that file', async () => {
    const disk = await onlyDisk();
    const snapshot = await vcsim.addSnapshot(machine, 'ours');
    const { reader } = await openNewest(disk);
    await vcsim.removeSnapshot(machine, snapshot);
    await expect(reader.read(0, new Uint8Array(512), never)).rejects.toMatchObject({ code: 'DATASTORE_UNREADABLE' });
    await reader[Symbol.asyncDispose]();
  });
});

function serverOf({ host, port, user, password, certificate }: Vcsim): SessionSettings {
  const thumbprint = thumbprintOf(new X509Certificate(readFileSync(certificate.certFile)));
  const trust = { thumbprint, caFile: null };
  return { address: { host, port }, user, password: { reveal: () => password }, proxy: null, trust };
}
