/** A process of its own that opens a disk and waits to be killed. */
import type { SnapshotDisk, VsphereLogin } from '../../../hypervisors/vsphere/disk-reader.ts';
import { openVddkReader } from '../../../hypervisors/vsphere/vddk/vddk-reader.ts';
import type { VddkSettings } from '../../../hypervisors/vsphere/vddk/vddk-settings.ts';

export interface HeldDisk {
  readonly settings: VddkSettings;
  readonly disk: SnapshotDisk;
  readonly login: Omit<VsphereLogin, 'password' | 'certificate'>;
  readonly password: string;
  readonly certificate: readonly number[];
}

process.once('message', async ({ settings, disk, login, password, certificate }: HeldDisk) => {
  const asked = { ...login, password: { reveal: () => password }, certificate: Uint8Array.from(certificate) };
  await openVddkReader(settings, asked, disk, new AbortController().signal);
  process.send?.('open');
});
