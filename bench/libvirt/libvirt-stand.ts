import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeGuestDisk, qemuImg } from '../../test/peers/guest.ts';
import { type DomainDisk, defineDomain, type LibvirtGuest, startLibvirt } from '../../test/peers/libvirt.ts';
import { type Arena, openStand, requireSame, type Stand } from '../arena.ts';
import { changesOf } from './block-changes.ts';

/** A running machine of libvirt with the arena's image as its second disk, and a store: fresh for each program. */

/** One line of shell on a serial port holds 4 KiB. */
const changesOfLine = 200;
const lineTimeoutMs = 120_000;

export interface LibvirtStand extends AsyncDisposable {
  readonly stand: Stand;
  readonly uri: string;
  readonly domain: string;
  readonly disks: readonly DomainDisk[];
  /** Label of the one that holds the arena's image. */
  readonly dataDisk: string;
  /** Of QEMU, which reads its disks for whoever asks. */
  readonly qemuPid: number;
  /** For scratch images; QEMU may write there. */
  readonly scratch: string;
  /** The guest writes so much of its data disk with what stands elsewhere on it. Returns how many blocks of 64 KiB. */
  change(share: number): Promise<number>;
  /**
   * Throws where a restored image is not what the data disk holds now. The other disk, from which the guest runs, is written to by each
   * thaw.
   */
  requireRestored(dataDisk: string): Promise<void>;
}

export async function openLibvirtStand(arena: Arena): Promise<LibvirtStand> {
  await using opened = new AsyncDisposableStack();
  const stand = opened.use(await openStand(arena));
  const peer = opened.use(await startLibvirt());
  const scratch = join(peer.folder, 'scratch');
  await mkdir(scratch);
  const data = join(peer.folder, 'data.qcow2');
  await qemuImg(['convert', '-q', '-f', 'raw', '-O', 'qcow2', arena.image, data]);
  const disks: readonly DomainDisk[] = [
    { label: 'vda', path: await makeGuestDisk(peer.folder, { format: 'qcow2' }), format: 'qcow2' },
    { label: 'vdb', path: data, format: 'qcow2' },
  ];
  const guest = await defineDomain(peer, { name: `bench-${process.pid}`, disks });
  await guest.start();
  await guest.ready();
  // Nobody writes but who is told to.
  await run(guest, 'umount /data/vdb 2>/dev/null; sync; sleep 1; sync');
  const held = opened.move();
  return {
    ...{ stand, uri: peer.uri, domain: guest.name, disks, dataDisk: 'vdb', scratch, qemuPid: guest.pid() },
    change: async (share) => {
      const pairs = await changesOf(arena.image, share);
      for (let i = 0; i < pairs.length; i += changesOfLine)
        await run(guest, shellFor(pairs.slice(i, i + changesOfLine)));
      await run(guest, 'sync');
      return pairs.length;
    },
    requireRestored: async (dataDisk) => {
      // QEMU writes out what it holds of the image's own tables.
      await peer.virsh('suspend', guest.name);
      await requireSameImage(data, dataDisk, stand.newFolder());
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function shellFor(pairs: readonly { readonly from: number; readonly to: number }[]): string {
  const list = pairs.map(({ from, to }) => `${from}:${to}`).join(' ');
  return `for p in ${list}; do dd bs=65536 count=1 if=/dev/vdb of=/dev/vdb skip=\${p%:*} seek=\${p#*:} conv=notrunc 2>/dev/null || break; done`;
}

async function run(guest: LibvirtGuest, line: string): Promise<void> {
  const { code, output } = await guest.run(line, lineTimeoutMs);
  if (code !== 0) throw new Error(`${line.slice(0, 80)} in the guest: ${output}`);
}

/** Both as raw files, for `cmp`. */
async function requireSameImage(live: string, restored: string, folder: string): Promise<void> {
  const [a, b] = [join(folder, 'live.raw'), join(folder, 'restored.raw')];
  await qemuImg(['convert', '-U', '-f', 'qcow2', '-O', 'raw', live, a]);
  await qemuImg(['convert', '-f', 'qcow2', '-O', 'raw', restored, b]);
  requireSame(a, b);
  await rm(folder, { recursive: true });
}
