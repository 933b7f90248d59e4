import { randomBytes } from 'node:crypto';
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChangeTrackingLost, SourceChanged, SourceNotFound, SourceUnreadable } from '../../hypervisors/errors.ts';
import type { BlockSource, MachineSnapshot, SnapshotOptions } from '../../hypervisors/hypervisor.ts';
import { connectImages } from '../../hypervisors/image/image-connection.ts';
import type { ImageMachine } from '../../hypervisors/image/image-machine.ts';
import { describeHypervisorContract } from '../contract/hypervisor.ts';

const refuse: SnapshotOptions = { quiesce: 'prefer', whenChanging: 'refuse' };
const mark: SnapshotOptions = { quiesce: 'prefer', whenChanging: 'mark-inconsistent' };
const never = new AbortController().signal;
const isRoot = process.getuid?.() === 0;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-image-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describeHypervisorContract('image', async () => {
  const labFolder = await mkdtemp(join(tmpdir(), 'failkit-image-lab-'));
  const paths = new Map([
    ['root', join(labFolder, 'root.raw')],
    ['data', join(labFolder, 'data.raw')],
  ]);
  await writeFile(join(labFolder, 'root.raw'), randomBytes(300_001));
  await writeSparse(join(labFolder, 'data.raw'), 5_000_000, 4_000_000);
  await writeFile(join(labFolder, 'OVMF_VARS.fd'), randomBytes(1000));
  const disks = [...paths].map(([label, path]) => ({ label, path }));
  return {
    connection: connectImages([{ name: 'web-1', disks, attachments: [join(labFolder, 'OVMF_VARS.fd')] }]),
    machineName: 'web-1',
    content: async () => {
      const contents = new Map<string, Uint8Array>();
      for (const [label, path] of paths) contents.set(label, await readFile(path));
      return contents;
    },
    write: (label, offset, bytes) => overwrite(paths.get(label) ?? '', offset, bytes),
    [Symbol.asyncDispose]: () => rm(labFolder, { recursive: true }),
  };
});

describe('an image machine', () => {
  it('has no reference point, and refuses one that it did not make', async () => {
    await using taken = await snapshotOf(await oneDisk());
    const [disk] = taken.disks;
    expect(disk?.referencePoint).toBeNull();
    const listing = disk
      ?.changedExtents(new Uint8Array([1]), never)
      [Symbol.asyncIterator]()
      .next();
    await expect(listing).rejects.toThrow(ChangeTrackingLost);
  });

  it('lists a large disk in extents of at most 64 MiB', async () => {
    const path = join(folder, 'large.raw');
    await writeSparse(path, 200 * 1024 * 1024 + 5, 0);
    await using taken = await snapshotOf(machineOf(path));
    const lengths: number[] = [];
    for await (const extent of theDisk(taken).changedExtents(null, never)) lengths.push(extent.length);
    expect(lengths).toEqual([67108864, 67108864, 67108864, 8388613]);
  });

  it('carries its attachments whole, named after their files', async () => {
    const machine = { ...(await oneDisk()), attachments: [join(folder, 'OVMF_VARS.fd')] };
    await writeFile(join(folder, 'OVMF_VARS.fd'), 'variables');
    await using taken = await snapshotOf(machine);
    expect(taken.attachments).toEqual([{ name: 'OVMF_VARS.fd', bytes: new TextEncoder().encode('variables') }]);
  });

  it('does not let a read pass the end of the disk', async () => {
    await using taken = await snapshotOf(await oneDisk());
    await expect(theDisk(taken).read(9_999, new Uint8Array(2), never)).rejects.toThrow(RangeError);
  });

  it('says where a file ended when it was truncated while it was read', async () => {
    const machine = await oneDisk();
    await using taken = await snapshotOf(machine);
    await truncate(pathOf(machine), 4096);
    const outcome = theDisk(taken).read(4000, new Uint8Array(1000), never);
    await expect(outcome).rejects.toThrow(SourceUnreadable);
    await expect(outcome).rejects.toThrow(new RegExp(`disk root of machine web-1: ${pathOf(machine)} at byte 4096`));
  });

  it('says which disk a failing read belongs to', async () => {
    const taken = await snapshotOf(await oneDisk());
    await taken[Symbol.asyncDispose]();
    const outcome = theDisk(taken).read(0, new Uint8Array(10), never);
    await expect(outcome).rejects.toThrow(SourceUnreadable);
    await expect(outcome).rejects.toThrow(/disk root of machine web-1: .* at byte 0: the read failed \(EBADF\)/);
  });

  it('closes what it opened when a later disk fails', async () => {
    const machine = await oneDisk();
    const before = await openFiles();
    const broken = { ...machine, disks: [...machine.disks, { label: 'data', path: join(folder, 'missing.raw') }] };
    for (let round = 0; round < 20; round += 1) await expect(snapshotOf(broken)).rejects.toThrow(SourceNotFound);
    expect(await openFiles()).toBeLessThan(before + 10);
  });
});

describe('a disk that changes while it is read', () => {
  const changes: readonly (readonly [string, RegExp, (path: string) => Promise<void>])[] = [
    ['is written in place', /it was written/, (path) => overwrite(path, 100, new Uint8Array(1))],
    ['grows', /size went from 10000 to 12000 bytes/, (path) => truncate(path, 12_000)],
    ['shrinks', /size went from 10000 to 10 bytes/, (path) => truncate(path, 10)],
    ['is removed', /it can no longer be opened/, (path) => rm(path)],
    ['is replaced', /another file took its place/, replaceFile],
    ['is chmodded', /owner, mode, links or content changed/, (path) => chmod(path, 0o640)],
  ];

  for (const [name, message, change] of changes)
    it(`is refused when it ${name}`, async () => {
      const machine = await oneDisk();
      await using taken = await snapshotOf(machine);
      await change(pathOf(machine));
      const outcome = taken.settleConsistency(never);
      await expect(outcome).rejects.toThrow(SourceChanged);
      await expect(outcome).rejects.toThrow(message);
      await expect(outcome).rejects.toThrow(pathOf(machine));
    });

  it('is marked inconsistent when the policy allows it', async () => {
    const machine = await oneDisk();
    await using taken = await snapshotOf(machine, mark);
    await overwrite(pathOf(machine), 100, new Uint8Array(1));
    expect(await taken.settleConsistency(never)).toBe('inconsistent');
  });

  it('is noticed in the very tick of the snapshot, write after write', async () => {
    const machine = await oneDisk();
    for (let round = 0; round < 20; round += 1) {
      await overwrite(pathOf(machine), 0, new Uint8Array([round]));
      await using taken = await snapshotOf(machine, mark);
      await overwrite(pathOf(machine), 0, new Uint8Array([round + 1]));
      expect(await taken.settleConsistency(never)).toBe('inconsistent');
    }
  });

  it('is noticed for an attachment too', async () => {
    const variables = join(folder, 'OVMF_VARS.fd');
    await writeFile(variables, 'old');
    await using taken = await snapshotOf({ ...(await oneDisk()), attachments: [variables] });
    await overwrite(variables, 0, new TextEncoder().encode('new'));
    await expect(taken.settleConsistency(never)).rejects.toThrow(/OVMF_VARS\.fd/);
  });

  it('is not confused with one that was only read', async () => {
    const machine = await oneDisk();
    await using taken = await snapshotOf(machine);
    await readFile(pathOf(machine));
    expect(await taken.settleConsistency(never)).toBe('crash-consistent');
  });
});

describe('a configuration that no snapshot can be taken of', () => {
  const wrong: readonly (readonly [string, RegExp, () => Promise<Partial<ImageMachine>>])[] = [
    ['a missing file', /disk root .*missing\.raw does not exist/, async () => disksOf('missing.raw')],
    ['a file below a file', /a\.raw\/b does not exist/, async () => disksOf('a.raw/b')],
    ['a directory', /b is a directory: give the path/, async () => disksOf('b')],
    ['an empty file', /empty\.raw is empty/, async () => disksOf('empty.raw')],
    ['a character device', /\/dev\/null is a character device/, async () => disksOf('/dev/null')],
    ['two labels alike', /two disks labelled root/, async () => twoDisks('a.raw', 'root')],
    ['one file twice', /root and data .* are the same disk/, async () => twoDisks('a.raw', 'data')],
    ['one file by symlink', /root and data .* are the same disk/, async () => twoDisks('symlink.raw', 'data')],
    ['one file by hard link', /root and data .* are the same disk/, async () => twoDisks('link.raw', 'data')],
    ['a missing attachment', /attachment of machine web-1: .*none\.fd does not exist/, async () => attached('none.fd')],
    ['a directory attached', /b is not a plain file/, async () => attached('b')],
    ['a badly named attachment', /rename or link it/, async () => attached('b/ü.fd')],
    ['an attachment that is a disk', /list disks under disks/, async () => attached('large.raw')],
    ['attachments of one name', /have the same file name/, async () => attached('v.fd', 'b/v.fd')],
  ];

  for (const [name, message, change] of wrong)
    it(`is refused for ${name}`, async () => {
      const machine = { ...(await oneDisk()), ...(await change()) };
      await makeOddFiles();
      const outcome = snapshotOf(machine);
      await expect(outcome).rejects.toThrow(SourceNotFound);
      await expect(outcome).rejects.toThrow(message);
    });

  it('is refused for a file that may not be read', async () => {
    const machine = await oneDisk();
    await chmod(pathOf(machine), 0);
    await asNobody(() => expect(snapshotOf(machine)).rejects.toThrow(/may not be read by this user/));
  });

  it('does not need to own a file that it may read', async () => {
    const machine = await oneDisk();
    await asNobody(async () => {
      await using taken = await snapshotOf(machine);
      await theDisk(taken).read(0, new Uint8Array(100), never);
    });
  });

  it('is refused by the listing too', async () => {
    const listing = connectImages([{ name: 'web-1', ...disksOf('missing.raw') }]).listMachines(never);
    await expect(listing[Symbol.asyncIterator]().next()).rejects.toThrow(SourceNotFound);
  });
});

function at(name: string): string {
  return name.startsWith('/') ? name : join(folder, name);
}

function disksOf(name: string): Pick<ImageMachine, 'disks'> {
  return { disks: [{ label: 'root', path: at(name) }] };
}

function machineOf(path: string): ImageMachine {
  return { name: 'web-1', ...disksOf(path) };
}

async function oneDisk(): Promise<ImageMachine> {
  await writeFile(at('a.raw'), randomBytes(10_000));
  return machineOf(at('a.raw'));
}

function twoDisks(second: string, label: string): Pick<ImageMachine, 'disks'> {
  return { disks: [...disksOf('a.raw').disks, { label, path: at(second) }] };
}

function attached(...names: readonly string[]): Pick<ImageMachine, 'attachments'> {
  return { attachments: names.map(at) };
}

async function makeOddFiles(): Promise<void> {
  await mkdir(at('b'));
  for (const name of ['empty.raw', 'v.fd', 'b/v.fd', 'b/ü.fd']) await writeFile(at(name), '');
  await writeSparse(at('large.raw'), 17 * 1024 * 1024, 0);
  await symlink(at('a.raw'), at('symlink.raw'));
  await link(at('a.raw'), at('link.raw'));
}

/** Root may read everything, so what others may not is tried as another user. */
async function asNobody(attempt: () => Promise<void>): Promise<void> {
  if (!isRoot) return attempt();
  await chmod(folder, 0o755);
  process.seteuid?.(65_534);
  try {
    await attempt();
  } finally {
    process.seteuid?.(0);
  }
}

function pathOf(machine: ImageMachine): string {
  const [disk] = machine.disks;
  return disk !== undefined && 'path' in disk ? disk.path : '';
}

function theDisk(taken: MachineSnapshot): BlockSource {
  const [disk] = taken.disks;
  if (disk === undefined) throw new Error('the snapshot has no disk');
  return disk;
}

function snapshotOf(machine: ImageMachine, options = refuse): Promise<MachineSnapshot> {
  return connectImages([machine]).snapshot({ name: machine.name }, options, never);
}

async function openFiles(): Promise<number> {
  return (await readdir('/dev/fd')).length;
}

async function writeSparse(path: string, size: number, dataAt: number): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(size);
  await file.write(randomBytes(10_000), 0, Math.min(10_000, size - dataAt), dataAt);
}

async function overwrite(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
}

async function replaceFile(path: string): Promise<void> {
  await writeFile(`${path}.new`, randomBytes(10_000));
  await rename(`${path}.new`, path);
}
