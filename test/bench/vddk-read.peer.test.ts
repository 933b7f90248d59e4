/** Our client against nbdcopy at the same nbdkit with its VDDK plugin. */
import { execFile } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { NbdDisk } from '../../hypervisors/nbd/nbd-disk.ts';
import { formatNbdUri } from '../../hypervisors/nbd/nbd-uri.ts';
import { NbdkitProcess } from '../../hypervisors/vsphere/vddk/nbdkit-process.ts';
import { canaries } from '../canary.ts';
import { nbdNeeds } from '../peers/nbd.ts';
import { peerFolder } from '../peers/server-process.ts';
import { makeStandInVddk, vddkNeeds } from '../peers/vddk.ts';

const needs = (await nbdNeeds()) ?? (await vddkNeeds());
const never = new AbortController().signal;
const capacityBytes = 256 * 1024 * 1024;
const readBytes = 256 * 1024;
const readsInFlight = 32;
const rounds = 9;
const leastRatio = 0.8;

describe.skipIf(needs !== null)(needs ?? 'reading through VDDK', () => {
  it(`takes at most ${1 / leastRatio} times as long as nbdcopy`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'failkit-vddk-bench-'));
    try {
      await mkdir(join(folder, 'snapshot-1'));
      await writeFile(join(folder, 'snapshot-1/d.vmdk'), randomFillSync(new Uint8Array(capacityBytes)));
      await using vddk = await makeStandInVddk({ root: folder });
      await using nbdkit = serve(folder, vddk);
      const socket = join(folder, 'socket');
      while (!existsSync(socket) && nbdkit.end === null) await sleep(20);
      const transport = { kind: 'unix' as const, path: socket };
      const uri = formatNbdUri({ transport, exportName: '', tls: false });
      const [ours, theirs]: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round++) {
        theirs.push(await timed(() => promisify(execFile)(join(peerFolder('nbd'), 'nbdcopy'), [uri, 'null:'])));
        ours.push(await timed(() => readAll({ transport, exportName: '', tls: false, serverName: 'localhost' })));
      }
      const ratio = Math.min(...theirs) / Math.min(...ours);
      const rate = (ms: number) => `${Math.round(capacityBytes / 2 ** 20 / (ms / 1000))} MiB/s`;
      console.log(
        `VDDK: ours ${rate(Math.min(...ours))}, nbdcopy ${rate(Math.min(...theirs))}, ratio ${ratio.toFixed(2)}`,
      );
      expect(ratio).toBeGreaterThan(leastRatio);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

function serve(
  folder: string,
  { nbdkit, libdir }: { readonly nbdkit: string; readonly libdir: string },
): NbdkitProcess {
  const { password } = canaries();
  return new NbdkitProcess({
    settings: {
      ...{ nbdkit, libdir, transports: 'nbdssl', compression: 'none', unbuffered: false, thumbprintHash: 'sha1' },
      configFile: null,
    },
    login: {
      ...{ host: 'vcenter.example', port: 443, user: 'agent', password: { reveal: () => password } },
      certificate: new Uint8Array(8),
    },
    disk: { machineRef: 'vm-1', snapshotRef: 'snapshot-1', file: '[ds] d.vmdk', capacityBytes },
    ...{ folder, socket: join(folder, 'socket'), configFile: '/dev/null' },
  });
}

async function readAll(address: Parameters<typeof NbdDisk.open>[0]): Promise<void> {
  await using disk = await NbdDisk.open(address, {}, never);
  let next = 0;
  const reader = async (): Promise<void> => {
    const into = Buffer.allocUnsafe(readBytes);
    for (let offset = next; offset < capacityBytes; offset = next) {
      next += readBytes;
      await disk.read(offset, into, never);
    }
  };
  await Promise.all(Array.from({ length: readsInFlight }, reader));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
