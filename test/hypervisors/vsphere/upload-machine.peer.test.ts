/** A captured machine is created at a single ESXi host, where there is one place only, and at a vCenter, where there are several. */

import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { findPlace, type PlaceNames } from '../../../hypervisors/vsphere/new-machine/find-place.ts';
import { MachineUpload, type ReadDisk } from '../../../hypervisors/vsphere/new-machine/upload-machine.ts';
import { parseSoapXml, printXml, referenceTag, tag } from '../../../hypervisors/vsphere/vim25/soap-xml.ts';
import { runTask } from '../../../hypervisors/vsphere/vim25/tasks.ts';
import { connectVsphere } from '../../../hypervisors/vsphere/vsphere-connection.ts';
import { VsphereNameTaken, VsphereUnreachable } from '../../../hypervisors/vsphere/vsphere-errors.ts';
import { openVimSession } from '../../../hypervisors/vsphere/vsphere-machine.ts';
import { openVsphereLab, type VsphereLab, vsphereNeeds } from './vsphere-lab.ts';

const needs = await vsphereNeeds();
const never = new AbortController().signal;
const anywhere: PlaceNames = { datastore: 'LocalDS_0', folder: null, pool: null, network: null };

describe.skipIf(needs !== null)(`a machine that is created${needs === null ? '' : ` (${needs})`}`, () => {
  async function captured(lab: VsphereLab) {
    await using connection = connectVsphere([lab.machine()]);
    await using taken = await connection.snapshot({ name: 'web' }, { quiesce: 'off', whenChanging: 'refuse' }, never);
    const config = taken.attachments.find(({ name }) => name === 'vsphere-config.xml')?.bytes;
    const disks = taken.disks.map(({ label, capacityBytes }) => ({ label, capacityBytes, contentId: '0badc0de' }));
    return { config: parseSoapXml(new TextDecoder().decode(config), 'the captured configuration'), disks, nvram: null };
  }

  /** Of the captured machine, under the name `again`, where nothing is in the way yet. */
  async function beginUpload(lab: VsphereLab) {
    await using own = new AsyncDisposableStack();
    const machine = { ...(await captured(lab)), name: 'again', contentName: '0badc0de' };
    const session = own.use(openVimSession(lab.server));
    const place = await findPlace(session, anywhere, never);
    const upload = own.use(new MachineUpload(session, lab.server, place, machine));
    await upload.check(never);
    const held = own.move();
    return { session, place, upload, [Symbol.asyncDispose]: () => held.disposeAsync() };
  }

  it('has its disks at an ESXi host, without anything being said of pools and folders', async () => {
    await using lab = await openVsphereLab({ esx: true });
    const content = await lab.content();
    await using begun = await beginUpload(lab);
    const { upload } = begun;
    let reads = 0;
    const read: ReadDisk = async (label, offset, into) => {
      reads++;
      // The login ends, and later the server restarts, while a disk is sent.
      if (reads === 1) await lab.vcsim.endSessions();
      if (reads === 2) await lab.vcsim.restart(300);
      into.set(content.get(label)?.subarray(offset, offset + into.length) ?? []);
    };
    const { file } = await upload.upload(read, () => undefined, never);
    expect(reads).toBeGreaterThan(2);
    expect(file).toBe('[LocalDS_0] again-0badc0de/again.vmx');
    const disks = await lab.vcsim.disks('again');
    expect(disks.map(({ label }) => label)).toEqual([...content.keys()]);
    for (const { label, live } of disks)
      expect(Buffer.compare(await readFile(live), content.get(label) ?? new Uint8Array())).toBe(0);
    await expect(upload.check(never)).rejects.toThrow(/has a machine again there already/);
  });

  it("is never taken for somebody else's of the same name, and overwrites none that was made meanwhile", async () => {
    await using lab = await openVsphereLab({ esx: true });
    const content = await lab.content();
    await using begun = await beginUpload(lab);
    const { session, place, upload } = begun;
    let reads = 0;
    const read: ReadDisk = async (label, offset, into) => {
      if (reads++ === 0) {
        const files = tag('files', [tag('vmPathName', '[LocalDS_0] theirs/theirs.vmx')]);
        const config = tag('config', [tag('name', 'again'), tag('guestId', 'otherGuest'), files]);
        const asked = [config, referenceTag('pool', place.pool)];
        await runTask(session, 'CreateVM_Task', place.folder, asked, 10_000, never);
        await lab.vcsim.hurt({ method: 'CreateVM_Task', how: 'lose-answer' });
      }
      into.set(content.get(label)?.subarray(offset, offset + into.length) ?? []);
    };
    await expect(upload.upload(read, () => undefined, never)).rejects.toThrow(VsphereUnreachable);
    reads = 1;
    await expect(upload.upload(read, () => undefined, never)).rejects.toThrow(VsphereNameTaken);
    expect(reads).toBe(1);
  });

  it('has no UEFI variables where they are sealed by vSphere, and says that it is not encrypted any more', async () => {
    await using lab = await openVsphereLab({ esx: true });
    const content = await lab.content();
    const { config, disks } = await captured(lab);
    const text = printXml(config).replace(/<\/[^>]+>\s*$/, '<keyId xmlns="urn:vim25"><keyId>52c0</keyId></keyId>$&');
    const sealed = parseSoapXml(text, 'the configuration of an encrypted machine');
    await using session = openVimSession(lab.server);
    const place = await findPlace(session, anywhere, never);
    const read: ReadDisk = async (label, offset, into) =>
      into.set(content.get(label)?.subarray(offset, offset + into.length) ?? []);
    const nvram = new Uint8Array(1024).fill(7);
    for (const [name, from] of Object.entries({ sealed, open: config })) {
      const machine = { config: from, disks, nvram, name, contentName: '0badc0de' };
      using upload = new MachineUpload(session, lab.server, place, machine);
      const { leftOut } = await upload.upload(read, () => undefined, never);
      // A host makes a new one where there is none.
      const file = await readFile(await lab.vcsim.pathOf(`[LocalDS_0] ${name}-0badc0de/${name}.nvram`));
      const isSealed = name === 'sealed';
      expect([file.equals(nvram), leftOut.some((each) => /^its encryption/.test(each))]).toEqual([!isSealed, isSealed]);
    }
  });

  it('is not begun by an account that may not finish it', async () => {
    await using lab = await openVsphereLab({ esx: true });
    const machine = { ...(await captured(lab)), name: 'again', contentName: '0badc0de' };
    await using session = openVimSession(lab.server);
    using upload = new MachineUpload(session, lab.server, await findPlace(session, anywhere, never), machine);
    for (const [privilege, on] of [
      ['VirtualMachine.Inventory.Create', 'the folder'],
      ['VirtualMachine.Config.AdvancedConfig', 'the folder'],
      ['Resource.AssignVMToPool', 'the resource pool'],
      ['Datastore.FileManagement', 'datastore LocalDS_0'],
    ] as const) {
      await lab.vcsim.behave({ lacking: [privilege] });
      await expect(upload.check(never)).rejects.toThrow(`on ${on} the account lacks ${privilege}`);
    }
    await lab.vcsim.behave({});
    await upload.check(never);
  });

  it('goes nowhere by itself where there are several places', async () => {
    await using lab = await openVsphereLab();
    await using session = openVimSession(lab.server);
    const finding = (changed: Partial<PlaceNames>) => findPlace(session, { ...anywhere, ...changed }, never);
    await expect(finding({})).rejects.toThrow(
      /at 2 clusters and hosts: say --pool DC0_C0\/Resources, or one of DC0_H0/,
    );
    await expect(finding({ pool: 'Resources' })).rejects.toThrow(/more than one resource pool Resources/);
    const place = await finding({ datastore: 'DC0/datastore/LocalDS_0', pool: 'DC0_H0/Resources', folder: 'DC0/vm' });
    await lab.vcsim.setKind('LocalDS_0', 'vsan');
    await expect(finding({ pool: 'DC0_H0/Resources' })).rejects.toThrow(
      /is of the kind vsan, which takes no flat files/,
    );
    expect([place.datacenterPath, place.network, place.datastore.name]).toEqual(['DC0', null, 'LocalDS_0']);
  });
});
