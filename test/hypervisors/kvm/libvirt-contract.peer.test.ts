/** The promises of every hypervisor connection, kept by a running machine of a real libvirt. */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe } from 'vitest';
import { connectKvm } from '../../../hypervisors/kvm/kvm-connection.ts';
import { describeHypervisorContract, type HypervisorLab } from '../../contract/hypervisor.ts';
import { makeGuestDisk, qemuImg } from '../../peers/guest.ts';
import { defineDomain, type LibvirtGuest, type LibvirtPeer, libvirtNeeds, startLibvirt } from '../../peers/libvirt.ts';

const needs = await libvirtNeeds();
const dataBytes = { vdb: 8 * 1024 * 1024 - 512, vdc: 3 * 1024 * 1024 };
const pieceBytes = 2048;

describe.skipIf(needs !== null)(`libvirt${needs === null ? '' : ` (${needs})`}`, () => {
  let shared: Promise<Site> | null = null;
  afterAll(async () => {
    await (await shared)?.peer.stop();
  });
  describeHypervisorContract('libvirt', async () => {
    shared ??= openSite();
    return openLab(await shared);
  });
});

interface Site {
  readonly peer: LibvirtPeer;
  readonly guest: LibvirtGuest;
}

/** One guest for all tests, for it takes seconds to boot; each test is a repository of its own to it. */
async function openSite(): Promise<Site> {
  const peer = await startLibvirt();
  const boot = await makeGuestDisk(peer.folder, { format: 'qcow2' });
  const disks = [{ label: 'vda', path: boot, format: 'qcow2' as const }];
  for (const [label, bytes] of Object.entries(dataBytes)) {
    const path = join(peer.folder, `${label}.qcow2`);
    await qemuImg(['create', '-q', '-f', 'qcow2', path, String(bytes)]);
    disks.push({ label, path, format: 'qcow2' });
  }
  const guest = await defineDomain(peer, { name: 'contract', disks });
  await guest.start();
  await guest.ready();
  return { peer, guest };
}

async function openLab({ peer, guest }: Site): Promise<HypervisorLab> {
  const scratchFolder = join(peer.folder, `scratch-${randomBytes(4).toString('hex')}`);
  const connection = connectKvm([
    {
      name: 'web',
      control: { kind: 'libvirt', uri: peer.uri, domain: guest.name },
      scratchFolder,
      scratchFreeBytesMin: 1024,
      excludedDisks: ['vda'],
      attachments: [],
      tag: randomBytes(4).toString('hex'),
    },
  ]);
  return {
    connection,
    machineName: 'web',
    content: () => contentOf(peer, guest),
    write: (label, offset, bytes) => writeInside(guest, label, offset, bytes),
    async [Symbol.asyncDispose]() {
      for (const name of (await peer.virsh('checkpoint-list', guest.name, '--name')).split('\n').filter(Boolean))
        await peer.virsh('checkpoint-delete', guest.name, name);
      await rm(scratchFolder, { recursive: true, force: true });
    },
  };
}

/** The disks while the machine stands still, by a program that is no part of ours. */
async function contentOf(peer: LibvirtPeer, { name }: LibvirtGuest): Promise<ReadonlyMap<string, Uint8Array>> {
  const folder = await mkdtemp(join(peer.folder, 'copy-'));
  await mkdir(folder, { recursive: true });
  await peer.virsh('suspend', name);
  try {
    const content = new Map<string, Uint8Array>();
    for (const label of Object.keys(dataBytes)) {
      const copy = join(folder, label);
      await qemuImg(['convert', '-U', '-f', 'qcow2', '-O', 'raw', join(peer.folder, `${label}.qcow2`), copy]);
      content.set(label, await readFile(copy));
    }
    return content;
  } finally {
    await peer.virsh('resume', name);
    await rm(folder, { recursive: true });
  }
}

async function writeInside(guest: LibvirtGuest, label: string, offset: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const text = Buffer.from(bytes.subarray(at, at + pieceBytes)).toString('base64');
    const to = `dd of=/dev/${label} bs=${pieceBytes} seek=${offset + at} oflag=seek_bytes conv=notrunc,fsync`;
    const { code, output } = await guest.run(`echo ${text} | base64 -d | ${to} 2>/dev/null`);
    if (code !== 0) throw new Error(`writing inside the guest: ${output}`);
  }
}
