/** What the doctor finds at a machine, by how its disks are read and what kind of server has it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { examineMachine } from '../../../hypervisors/vsphere/examine-machine.ts';
import { openVimSession, type VsphereMachine } from '../../../hypervisors/vsphere/vsphere-machine.ts';
import { labMachine, openVsphereLab, type VsphereLab, vsphereNeeds } from './vsphere-lab.ts';

const needs = await vsphereNeeds();
const never = new AbortController().signal;

async function examined(lab: VsphereLab, changed: Partial<VsphereMachine> = {}) {
  await using session = openVimSession(lab.server);
  const { findings } = await examineMachine(session, lab.machine(changed), never);
  const at = (wanted: string) => findings.filter(({ level }) => level === wanted).map(({ what }) => what);
  const [failed, all, fixes] = [at('failed'), findings.map(({ what }) => what), findings.map(({ fix }) => fix)];
  return { failed: failed.join('\n'), all: all.join('\n'), fixes: fixes.join('\n') };
}

describe.skipIf(needs !== null)(`a machine is examined${needs === null ? '' : ` (${needs})`}`, () => {
  let lab: VsphereLab;
  beforeAll(async () => {
    lab = await openVsphereLab();
  });
  afterAll(() => lab?.[Symbol.asyncDispose]());

  it('at a single ESXi host by the address that it is known by here, not by what it calls itself', async () => {
    await using esx = await openVsphereLab({ esx: true });
    const { all } = await examined(esx);
    expect(all).toMatch(/host 127\.0\.0\.1 can't be reached at port 902/);
    expect(all).not.toContain('localhost');
  });

  it('for ports of hosts where VDDK reads from them, and not where its datastores are read', async () => {
    expect((await examined(lab)).all).toMatch(/host DC0_H0 can't be reached at port 902/);
    expect((await examined(lab, { reads: 'datastore' })).all).not.toContain('at port');
  });

  it('for what reading from datastores needs of the account', async () => {
    await lab.vcsim.behave({ lacking: ['Datastore.FileManagement'] });
    expect((await examined(lab)).failed).toBe('');
    expect((await examined(lab, { reads: 'datastore' })).failed).toBe(
      "its disks can't be read: the account lacks Datastore.FileManagement on a datastore of it",
    );
    await lab.vcsim.behave({});
  });

  it("for somebody else's snapshots, on which no datastore's disk may stand", async () => {
    const theirs = await lab.vcsim.addSnapshot(labMachine, 'before the upgrade');
    const byVddk = await examined(lab);
    expect([byVddk.failed, byVddk.all]).toEqual(['', expect.stringMatching(/\(before the upgrade\): disks grow/)]);
    expect(byVddk.fixes).not.toContain('failkit-');
    expect((await examined(lab, { reads: 'datastore' })).failed).toMatch(/before the upgrade\): a disk that stands/);
    await lab.vcsim.removeSnapshot(labMachine, theirs);
    const once = await lab.vcsim.addSnapshot(labMachine, 'failkit-0badc0de-0123456789abcdef');
    expect((await examined(lab)).fixes).toMatch(/those called failkit-… are of another agent or configuration/);
    await lab.vcsim.removeSnapshot(labMachine, once);
  });
});
