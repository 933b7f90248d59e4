/** A vCenter with many machines, each as large as they are: what is kept of it is what is listed, not what it answered. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { listInventory } from '../../../hypervisors/vsphere/inventory.ts';
import { VimSession } from '../../../hypervisors/vsphere/vim25/vim-session.ts';
import { canaries } from '../../canary.ts';
import { pinOf, responseOf, type ScriptedVim, startScriptedVim } from './scripted-vim.ts';

const never = new AbortController().signal;
const [pages, perPage] = [20, 20];
/** What answers say of a machine is 65 KB as text, and many times that once it is parsed; 100,000 machines of this are less than the agent may have. */
const bytesEachMax = 5_000;
const warmUpBytes = 10 * 2 ** 20;

setFlagsFromString('--expose_gc');
const collectGarbage: () => void = runInNewContext('gc');

let vim: ScriptedVim;
beforeAll(async () => {
  vim = await startScriptedVim();
  vim.reset();
});
afterAll(() => vim?.[Symbol.asyncDispose]());

it(`${pages * perPage} machines are listed without all that was said of them being kept`, async () => {
  vim.answer(
    'CreateContainerView',
    responseOf('CreateContainerView', '<returnval type="ContainerView">view-1</returnval>'),
  );
  vim.answer('DestroyView', responseOf('DestroyView', ''));
  vim.answer('RetrievePropertiesEx', pageOf('RetrievePropertiesEx', 0));
  const others = Array.from({ length: pages - 1 }, (_, i) => pageOf('ContinueRetrievePropertiesEx', i + 1));
  vim.answer('ContinueRetrievePropertiesEx', ...others);
  await using session = new VimSession({
    ...{ address: { host: '127.0.0.1', port: vim.port }, proxy: null, user: 'agent' },
    ...{ trust: { thumbprint: pinOf(vim.certificate), caFile: null }, password: { reveal: () => canaries().password } },
  });
  const before = heldBytes();
  const entries = await listInventory(session, never);
  const held = heldBytes() - before;
  expect(entries).toHaveLength(pages * perPage);
  expect(entries[0]?.machine.disks.map(({ label }) => label)).toEqual(['scsi0:0']);
  expect(held).toBeLessThan(warmUpBytes + entries.length * bytesEachMax);
});

function heldBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function pageOf(method: string, page: number): string {
  const machines = Array.from({ length: perPage }, (_, i) => machineOf(`${page}-${i}`));
  const token = page === pages - 1 ? '' : `<token>${page}</token>`;
  return responseOf(method, `<returnval>${token}${machines.join('')}</returnval>`);
}

function machineOf(id: string): string {
  const cards = Array.from(
    { length: 30 },
    (_, i) =>
      `<VirtualDevice xsi:type="VirtualVmxnet3"><key>${4000 + i}</key><deviceInfo><label>Network adapter ${i} of ${id}</label><summary>a network</summary></deviceInfo><backing xsi:type="VirtualEthernetCardNetworkBackingInfo"><deviceName>VM Network</deviceName></backing><connectable><startConnected>true</startConnected></connectable></VirtualDevice>`,
  );
  const disk = `<VirtualDevice xsi:type="VirtualDisk"><key>2000</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[vmfs] ${id}/${id}.vmdk</fileName><diskMode>persistent</diskMode></backing><controllerKey>1000</controllerKey><unitNumber>0</unitNumber><capacityInKB>1024</capacityInKB></VirtualDevice>`;
  const controller = `<VirtualDevice xsi:type="ParaVirtualSCSIController"><key>1000</key><busNumber>0</busNumber></VirtualDevice>`;
  const settings = Array.from(
    { length: 100 },
    (_, i) =>
      `<OptionValue><key>guestinfo.${i}</key><value xsi:type="xsd:string">of ${id}: ${i} ${'x'.repeat(500)}</value></OptionValue>`,
  );
  const set = (name: string, value: string): string => `<propSet><name>${name}</name><val>${value}</val></propSet>`;
  return `<objects><obj type="VirtualMachine">vm-${id}</obj>${set('name', `machine ${id}`)}${set('config.hardware.device', controller + disk + cards.join(''))}${set('config.extraConfig', settings.join(''))}</objects>`;
}
