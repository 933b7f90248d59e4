import { expect, it } from 'vitest';
import { captureNvram } from '../../../hypervisors/vsphere/capture-nvram.ts';
import { parseSoapXml } from '../../../hypervisors/vsphere/vim25/soap-xml.ts';
import type { VsphereSite } from '../../../hypervisors/vsphere/vsphere-site.ts';

const never = new AbortController().signal;
/** Whoever asks it for anything fails. */
const nowhere = {} as VsphereSite;
const read = (inside: string) => captureNvram(nowhere, parseSoapXml(`<config>${inside}</config>`, 'it'), never);
const files = '<files><vmPathName>[vmfs-1] web/web.vmx</vmPathName></files>';

it('UEFI variables that vSphere encrypts are not captured: no other machine could start with them', async () => {
  expect(await read(`${files}<keyId><keyId>52c0</keyId></keyId>`)).toEqual({
    file: '[vmfs-1] web/web.nvram',
    missing: 'vSphere encrypts it, with keys that it gives to nobody',
  });
});

it.each([
  ['vSphere does not say where the machine is', ''],
  [
    'it lies elsewhere than the machine',
    `${files}<extraConfig><key>NVRAM</key><value>/vmfs/volumes/52c0/shared.nvram</value></extraConfig>`,
  ],
])('a point says why it has none: %s', async (missing, inside) => {
  expect(await read(inside)).toMatchObject({ missing });
});
