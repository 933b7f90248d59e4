import { describe, expect, it } from 'vitest';
import { ChangeTrackingLost } from '../../../../hypervisors/errors.ts';
import {
  checkpointDocument,
  pullDocument,
  pushDocument,
} from '../../../../hypervisors/kvm/libvirt/backup-documents.ts';
import { isOurJob } from '../../../../hypervisors/kvm/libvirt/backup-job.ts';
import { checkpointOf, trackDisk } from '../../../../hypervisors/kvm/libvirt/disk-tracking.ts';
import { LibvirtOutputInvalid, LibvirtUnreachable } from '../../../../hypervisors/kvm/libvirt/libvirt-errors.ts';
import { placeOf } from '../../../../hypervisors/kvm/libvirt/libvirt-place.ts';
import { quoted } from '../../../../hypervisors/kvm/libvirt/virsh-shell.ts';
import { attributeOf, buildXml, childOf, parseXml, textOf } from '../../../../hypervisors/kvm/libvirt/xml.ts';
import { marksOf } from '../../../../hypervisors/kvm/marks.ts';

const vda = {
  label: 'vda',
  format: 'qcow2',
  path: '/images/a.qcow2',
  serial: null,
  hasIothread: false,
  tracksChanges: true,
  isBusy: false,
  unusable: null,
};
const older = { name: 'failkit-0a-point-1', dirtyBytes: new Map([['vda', 65536]]) };
const newer = { name: 'failkit-0a-point-2', dirtyBytes: new Map([['vda', 0]]) };

describe('XML for and from libvirt', () => {
  it('keeps every character of names and paths', () => {
    const odd = `a<b>&"c"'d' é`;
    const text = buildXml({ name: 'x', attributes: { path: odd }, children: [{ name: 'y', children: [odd] }] });
    const root = parseXml(text, 'it', 'x');
    expect(attributeOf(root, 'path')).toBe(odd);
    expect(textOf(childOf(root, 'y'))).toBe(odd);
  });

  it.for(['', 'no XML', '<a><b></a>', '<b/>', '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a>&e;</a>'])(
    'refuses %j by name',
    (text) => {
      expect(() => parseXml(text, 'what libvirt said', 'a')).toThrow(LibvirtOutputInvalid);
    },
  );

  it('begins a snapshot of just the disks that are wanted', () => {
    const disks = [
      { label: 'vda', image: '/s/a', since: 'failkit-0a-point-1' },
      { label: 'vdb', image: '/s/b', since: null },
    ];
    expect(pullDocument('/s/nbd', disks, ['vdc'])).toMatchInlineSnapshot(
      `"<domainbackup mode="pull"><server transport="unix" socket="/s/nbd"/><disks><disk backup="yes" backupmode="incremental" incremental="failkit-0a-point-1" name="vda" type="file" exportname="vda" exportbitmap="changed"><driver type="qcow2"/><scratch file="/s/a"/></disk><disk backup="yes" backupmode="full" name="vdb" type="file" exportname="vdb"><driver type="qcow2"/><scratch file="/s/b"/></disk><disk name="vdc" backup="no"/></disks></domainbackup>"`,
    );
    expect(pushDocument(disks.slice(1), [])).toMatchInlineSnapshot(
      `"<domainbackup mode="push"><disks><disk backup="yes" backupmode="full" name="vdb" type="file"><driver type="qcow2"/><target file="/s/b"/></disk></disks></domainbackup>"`,
    );
    expect(checkpointDocument('p', ['vda'], ['vdc'])).toMatchInlineSnapshot(
      `"<domaincheckpoint><name>p</name><disks><disk name="vda" checkpoint="bitmap"/><disk name="vdc" checkpoint="no"/></disks></domaincheckpoint>"`,
    );
  });

  it('quotes words of virsh', () => {
    expect(quoted('/a b/"c"\\d')).toBe('"/a b/\\"c\\"\\\\d"');
  });
});

describe('which checkpoint a snapshot is begun with', () => {
  const point = (checkpoint: string, image = 'image') =>
    new TextEncoder().encode(JSON.stringify({ checkpoint, image }));

  it('is the one that the newest point names, though newer ones are there', () => {
    const tracking = trackDisk(vda, 'image', [older, newer], point(older.name));
    expect(tracking.since).toBe(older.name);
    expect(() => tracking.requireSince(point(older.name))).not.toThrow();
    expect(() => tracking.requireSince(point(newer.name))).toThrow(ChangeTrackingLost);
  });

  it('is none where all is to be read, and the newest whole one where nobody knows', () => {
    expect(trackDisk(vda, 'image', [older, newer], null).since).toBeNull();
    expect(trackDisk(vda, 'image', [older, newer], undefined).since).toBe(newer.name);
    const broken = { ...newer, dirtyBytes: new Map<string, number>() };
    expect(trackDisk(vda, 'image', [older, broken], undefined).since).toBe(older.name);
  });

  it.for([
    {
      doubt: 'another image under the same name',
      since: point(older.name, 'other'),
      says: /its image is image now and was other/,
    },
    {
      doubt: 'a checkpoint that is gone',
      since: point('failkit-0a-point-0'),
      says: /no checkpoint failkit-0a-point-0/,
    },
    { doubt: 'what another source kept', since: new TextEncoder().encode('failkit-1'), says: /not one of libvirt/ },
  ])('is none after $doubt, and the reason is told', ({ since, says }) => {
    const tracking = trackDisk(vda, 'image', [older, newer], since);
    expect(tracking.since).toBeNull();
    expect(() => tracking.requireSince(since)).toThrow(ChangeTrackingLost);
    expect(() => tracking.requireSince(since)).toThrow(says);
  });

  it('gives a reference point that names the checkpoint, and none to a disk without bitmaps', () => {
    expect(checkpointOf(trackDisk(vda, 'image', [], null).referencePoint('new'))).toBe('new');
    const raw = { ...vda, format: 'raw', tracksChanges: false };
    expect(trackDisk(raw, 'image', [], null).referencePoint('new')).toBeNull();
  });
});

it('knows its own job by where that keeps its files', () => {
  const marks = marksOf('0a0b0c0d');
  expect(isOurJob(['/s/failkit-0a0b0c0d-run/nbd', '/s/failkit-0a0b0c0d-run/x.qcow2'], marks)).toBe(true);
  expect(isOurJob(['/s/failkit-ffffffff-run/nbd'], marks)).toBe(false);
  expect(isOurJob(['/s/failkit-0a0b0c0d-run/nbd', '/var/tmp/other.qcow2'], marks)).toBe(false);
  expect(isOurJob([], marks)).toBe(false);
});

it('knows which addresses of libvirt it can read disks from', () => {
  expect(placeOf('qemu:///system')).toEqual({ kind: 'here' });
  expect(placeOf('qemu+unix:///system?socket=/run/x')).toEqual({ kind: 'here' });
  expect(placeOf('qemu+ssh://root@kvm-1:2222/system?keyfile=/k')).toEqual({
    kind: 'ssh',
    host: 'kvm-1',
    user: 'root',
    port: 2222,
    command: null,
    keyFile: '/k',
  });
  for (const uri of ['qemu+tcp://kvm-1/system', 'xen:///', 'nonsense'])
    expect(() => placeOf(uri), uri).toThrow(LibvirtUnreachable);
});
