/** A vCenter and a VDDK of the test rig, and one machine of it with two disks. */
import { randomBytes, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { listInventory } from '../../../hypervisors/vsphere/inventory.ts';
import { tag, typedTag } from '../../../hypervisors/vsphere/vim25/soap-xml.ts';
import { runTask } from '../../../hypervisors/vsphere/vim25/tasks.ts';
import { thumbprintOf } from '../../../hypervisors/vsphere/vim25/trusted-agent.ts';
import {
  openVimSession,
  type VsphereMachine,
  type VsphereServer,
} from '../../../hypervisors/vsphere/vsphere-machine.ts';
import { startVcsim, type Vcsim, type VcsimDisk, type VcsimOptions, vcsimNeeds } from '../../peers/vcsim.ts';
import { makeStandInVddk, type StandInVddk, standInFor, vddkNeeds } from '../../peers/vddk.ts';

/** What is missing, or null. */
export async function vsphereNeeds(): Promise<string | null> {
  return (await vcsimNeeds()) ?? (await vddkNeeds());
}

export const labMachine = 'DC0_H0_VM0';
const machines = {
  vcenter: { name: labMachine, path: `DC0/vm/${labMachine}` },
  esx: { name: 'ha-host_VM0', path: 'ha-datacenter/vm/ha-host_VM0' },
};
const mebibyte = 1024 * 1024;
const never = new AbortController().signal;

export interface VsphereLab extends AsyncDisposable {
  readonly vcsim: Vcsim;
  readonly vddk: StandInVddk;
  readonly server: VsphereServer;
  /** The machine, as an agent of its own would have it configured. */
  machine(changed?: Partial<VsphereMachine>): VsphereMachine;
  disks(): Promise<readonly VcsimDisk[]>;
  content(): Promise<ReadonlyMap<string, Uint8Array>>;
  write(label: string, offset: number, bytes: Uint8Array): Promise<void>;
}

export interface LabOptions extends VcsimOptions {
  /** As on old virtual hardware. */
  readonly withoutGeneration?: boolean;
}

export async function openVsphereLab(options: LabOptions = {}): Promise<VsphereLab> {
  await using opening = new AsyncDisposableStack();
  const { name, path } = machines[options.esx === true ? 'esx' : 'vcenter'];
  const vcsim = opening.use(await startVcsim({ capacityBytes: 4 * mebibyte, ...options }));
  await vcsim.addDisk(name, 2 * mebibyte + 1024);
  const vddk = opening.use(await makeStandInVddk(standInFor(vcsim)));
  const server = serverOf(vcsim, vddk);
  const disks = () => vcsim.disks(name);
  if (options.withoutGeneration !== true) await giveGeneration(server, name);
  const lab = {
    vcsim,
    vddk,
    server,
    disks,
    machine: (changed: Partial<VsphereMachine> = {}): VsphereMachine => ({
      ...{ name: 'web', server, at: { path }, excludedDisks: [], tracking: 'enable', reads: 'vddk' },
      datastoreFreeBytesMin: 0,
      tag: randomBytes(4).toString('hex'),
      ...changed,
    }),
    content: async () =>
      new Map(
        await Promise.all(
          (await disks()).map(async ({ label, live }) => [labelOf(label), await readFile(live)] as const),
        ),
      ),
    async write(label: string, offset: number, bytes: Uint8Array) {
      const disk = (await disks()).find((each) => labelOf(each.label) === label);
      if (disk === undefined) throw new Error(`there is no disk ${label}`);
      await using file = await open(disk.live, 'r+');
      await file.write(bytes, 0, bytes.length, offset);
    },
  };
  for (const { label, capacityBytes } of await disks())
    await lab.write(labelOf(label), capacityBytes - 100_000, randomBytes(100_000));
  const held = opening.move();
  return { ...lab, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

/** As a real vCenter gives to each machine of newer virtual hardware; the simulator gives none. */
async function giveGeneration(server: VsphereServer, name: string): Promise<void> {
  await using session = openVimSession(server);
  const [listed] = (await listInventory(session, never)).filter(({ machine }) => machine.name === name);
  if (listed === undefined) throw new Error(`there is no ${name}`);
  const value = tag('value', '-5412345678901234567', { 'xsi:type': 'xsd:string' });
  const spec = tag('spec', [typedTag('extraConfig', 'OptionValue', [tag('key', 'vm.genid'), value])]);
  await runTask(session, 'ReconfigVM_Task', listed.machine.ref, [spec], 10_000, never);
}

function serverOf({ host, port, user, password, certificate }: Vcsim, vddk: StandInVddk | null): VsphereServer {
  const thumbprint = thumbprintOf(new X509Certificate(readFileSync(certificate.certFile)));
  return {
    ...{ name: 'site', address: { host, port }, user, proxy: null },
    password: { reveal: () => password },
    trust: { thumbprint, caFile: null },
    vddk: {
      ...{ nbdkit: vddk?.nbdkit ?? 'nbdkit', libdir: vddk?.libdir ?? '/nowhere', transports: 'nbdssl' },
      ...{ compression: 'none', unbuffered: false, thumbprintHash: 'sha1', configFile: null },
    },
  };
}

/** The simulator calls a disk by its controller's key and its unit; a vCenter's clients see the bus. */
function labelOf(label: string): string {
  return label.replace(/^disk-\d+-/, 'scsi0:');
}
