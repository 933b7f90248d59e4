/** The promises of every hypervisor connection, kept by a machine of the simulated vCenter: real nbdkit, our own double of VMware's library. */
import { afterAll, describe } from 'vitest';
import { connectVsphere } from '../../../hypervisors/vsphere/vsphere-connection.ts';
import { describeHypervisorContract } from '../../contract/hypervisor.ts';
import { openVsphereLab, type VsphereLab, vsphereNeeds } from './vsphere-lab.ts';

const needs = await vsphereNeeds();

describe.skipIf(needs !== null)(`vSphere${needs === null ? '' : ` (${needs})`}`, () => {
  let shared: Promise<VsphereLab> | null = null;
  afterAll(async () => {
    await (await shared)?.[Symbol.asyncDispose]();
  });
  describeHypervisorContract('vSphere', async () => {
    shared ??= openVsphereLab();
    const lab = await shared;
    const connection = connectVsphere([lab.machine()]);
    return {
      connection,
      machineName: 'web',
      content: lab.content,
      write: lab.write,
      [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
    };
  });
});
