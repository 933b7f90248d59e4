/** A process that has no file descriptor left, and starts a reader: prints how that ended. */
import { openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdkitProcess } from '../../../hypervisors/vsphere/vddk/nbdkit-process.ts';

try {
  for (;;) openSync('/dev/null', 'r');
} catch {
  const process = new NbdkitProcess({
    settings: {
      ...{ nbdkit: 'nbdkit', libdir: '/nowhere', transports: 'nbdssl', compression: 'none', unbuffered: false },
      ...{ thumbprintHash: 'sha1', configFile: null },
    },
    login: { host: 'h', port: 443, user: 'u', password: { reveal: () => 'p' }, certificate: new Uint8Array(8) },
    disk: { machineRef: 'vm-1', snapshotRef: 'snapshot-1', file: '[ds] d.vmdk', capacityBytes: 512 },
    ...{ folder: '/tmp', socket: '/tmp/no-socket', configFile: '/dev/null' },
  });
  while (process.end === null) await sleep(10);
  console.log(process.end);
}
