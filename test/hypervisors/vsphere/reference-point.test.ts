import { describe, expect, it } from 'vitest';
import { ChangeTrackingLost } from '../../../hypervisors/errors.ts';
import {
  changeIdSince,
  encodeReferencePoint,
  type VsphereReferencePoint,
} from '../../../hypervisors/vsphere/reference-point.ts';

const then: VsphereReferencePoint = {
  changeId: '52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81',
  identity: '6000C295-1c5c',
  capacityBytes: 1024,
  instanceUuid: '502e1052',
  server: '0c2e5a0b',
  machineGeneration: '-7',
  hadOthers: true,
};
const now = { ...then, changeId: '52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/82' };

describe('what changed since a reference point', () => {
  it('is asked by its change id while all that it depends on holds', () => {
    expect(changeIdSince('scsi0:0', encodeReferencePoint(then), now)).toBe(then.changeId);
    expect(changeIdSince('scsi0:0', encodeReferencePoint(then), then)).toBe(then.changeId);
  });

  it.each<[string, VsphereReferencePoint | null]>([
    ['vSphere does not track its changes any more', null],
    ['the machine moved to another vCenter', { ...now, server: 'other' }],
    ['it belongs to another machine now', { ...now, instanceUuid: 'other' }],
    ['another disk is attached in its place', { ...now, identity: 'other' }],
    ['its size changed from 1024 to 2048 bytes', { ...now, capacityBytes: 2048 }],
    ['the machine went back to a snapshot, or is a clone', { ...now, machineGeneration: '8' }],
    ['changed block tracking was switched off and on, or reset', { ...now, changeId: '52 00 c0-61/82' }],
    ['its change ids run backwards', { ...now, changeId: then.changeId.replace('/81', '/9') }],
  ])('is not known where %s', (why, after) => {
    const ask = () => changeIdSince('scsi0:0', encodeReferencePoint(then), after);
    expect(ask).toThrow(ChangeTrackingLost);
    expect(ask).toThrow(`disk scsi0:0: ${why}`);
  });

  it('is not known of a disk that has nothing to be told by', () => {
    const ask = () =>
      changeIdSince('scsi0:0', encodeReferencePoint({ ...then, identity: null }), { ...now, identity: null });
    expect(ask).toThrow(/it has no UUID/);
  });

  describe('of a machine without a generation id', () => {
    const ask = (hadOthers: object) => {
      const text = JSON.stringify({ version: 1, ...then, machineGeneration: null, hadOthers: undefined, ...hadOthers });
      return changeIdSince('scsi0:0', new TextEncoder().encode(text), { ...now, machineGeneration: null });
    };

    it('is asked while there was no snapshot to go back to', () => {
      expect(ask({ hadOthers: false })).toBe(then.changeId);
    });

    it('is not known where there was one, or where the point does not say', () => {
      for (const had of [{ hadOthers: true }, {}])
        expect(() => ask(had)).toThrow(/had snapshots that it may have gone/);
    });
  });

  it('is not known where another kind of source read the last point', () => {
    for (const text of ['', 'failkit-0badc0de-point-1', '{"version":2}', '\u0000\u00ff'])
      expect(() => changeIdSince('scsi0:0', new TextEncoder().encode(text), now)).toThrow(ChangeTrackingLost);
  });
});
