/** A process of its own that opens a disk and waits to be killed. */
import { openVddkReader } from '../../../hypervisors/vsphere/vddk/vddk-reader.ts';

process.once('message', async (told: never) => {
  const { settings, login, disk } = told as { settings: never; login: { password: string }; disk: never };
  const password = { reveal: () => login.password };
  const asked = { ...login, password, certificate: new TextEncoder().encode('any bytes have a hash') };
  await openVddkReader(settings, asked as never, disk, new AbortController().signal);
  process.send?.('open');
});
