import { describe, expect, it } from 'vitest';
import { beside, folderPath, parseDatastoreFile } from '../../../hypervisors/vsphere/datastore/datastore-file.ts';
import { readDescriptor } from '../../../hypervisors/vsphere/datastore/disk-descriptor.ts';

const descriptor = (...extents: readonly string[]) =>
  `# Disk DescriptorFile\nversion=4\nencoding="UTF-8"\nCID=1b2c3d4e\nparentCID=ffffffff\ncreateType="vmfs"\n\n` +
  `# Extent description\n${extents.join('\n')}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "lsilogic"\n`;

describe("a disk's descriptor", () => {
  it('names the flat file behind the disk', () => {
    expect(readDescriptor(descriptor('RW 16384 VMFS "a disk-flat.vmdk"'))).toEqual({
      file: 'a disk-flat.vmdk',
      bytes: 8388608,
    });
    expect(readDescriptor(descriptor('RW 2 FLAT "d-flat.vmdk" 0').replaceAll('\n', '\r\n'))).toEqual({
      file: 'd-flat.vmdk',
      bytes: 1024,
    });
  });

  it.for([
    ['a disk that stands on a snapshot', descriptor('RW 16384 SESPARSE "d-000001-sesparse.vmdk"')],
    ['an older delta', descriptor('RW 16384 VMFSSPARSE "d-000001-delta.vmdk"')],
    ['a raw device', descriptor('RW 16384 VMFSRDM "d-rdm.vmdk"')],
    ['vSAN', descriptor('RW 16384 VMFS "vsan://5284-42"')],
    ['several files', descriptor('RW 1 VMFS "a-flat.vmdk"', 'RW 1 VMFS "b-flat.vmdk"')],
    ['no file', descriptor('RW 16384 ZERO')],
    ['a file in another folder', descriptor('RW 16384 VMFS "../other/d-flat.vmdk"')],
    ['a part of a file', descriptor('RW 16384 FLAT "d-flat.vmdk" 2048')],
    ['no extent at all', descriptor()],
    ['something else', 'KDMV binary'],
  ])('is refused for %s', ([, text]) => {
    expect(readDescriptor(text ?? '')).toHaveProperty('refusal');
  });

  it('is found by names with blanks, brackets and signs in them', () => {
    const file = parseDatastoreFile('[ds & one] a folder/ä#1.vmdk');
    expect(file).toEqual({ datastore: 'ds & one', path: 'a folder/ä#1.vmdk' });
    if (file === null) return;
    expect(folderPath(beside(file, 'ä#1-flat.vmdk'), 'Europe/DC 1')).toBe(
      '/folder/a%20folder/%C3%A4%231-flat.vmdk?dcPath=Europe%2FDC%201&dsName=ds%20%26%20one',
    );
    expect(parseDatastoreFile('/vmfs/volumes/x.vmdk')).toBeNull();
  });
});
