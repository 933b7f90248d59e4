import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import { toHex } from '../../replica/encoding.ts';
import {
  chainEntryName,
  chainPrefix,
  compareSegments,
  controlName,
  invertedNumberOf,
  keyRecordName,
  segmentName,
  trustName,
  trustPrefix,
} from '../../replica/names.ts';
import { listMachineIds, newestNumber } from '../../replica/open-repository.ts';
import { checkObjectName } from '../../storage-targets/object-name.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { filled, machineId } from './specimens.ts';

const signal = new AbortController().signal;
const machine = '22222222222222222222222222222222';
const anySeq = fc.maxSafeNat();

describe('names', () => {
  it('are what the format says', () => {
    expect(trustName(0)).toBe('trust/9007199254740991');
    expect(chainEntryName(machineId, 1)).toBe(`machines/${machine}/chain/9007199254740990`);
    expect(chainEntryName(machineId, 2 ** 53 - 1)).toBe(`machines/${machine}/chain/0000000000000000`);
    expect(segmentName(machineId, { tenure: 12, number: 5 })).toBe(
      `machines/${machine}/segments/0000000000000012/0000000005`,
    );
    expect(keyRecordName(machineId, 3, 2)).toBe(`machines/${machine}/keys/00000003/0002`);
    expect(controlName(machineId, 64, filled(32, 0xab))).toBe(
      `machines/${machine}/control/0000000000000064-${'ab'.repeat(16)}`,
    );
  });

  it('are names that every store takes', () => {
    const names = [
      trustName(0),
      chainEntryName(machineId, 1),
      segmentName(machineId, { tenure: 2 ** 53 - 1, number: 2 ** 32 - 1 }),
    ];
    for (const name of [...names, keyRecordName(machineId, 99_999_999, 9999)])
      expect(() => checkObjectName(name)).not.toThrow();
  });

  it('of newer entries sort first, and give their number back', () => {
    fc.assert(
      fc.property(anySeq, anySeq, (a, b) => {
        const [x, y] = [chainEntryName(machineId, a), chainEntryName(machineId, b)];
        expect(Math.sign(Buffer.compare(Buffer.from(x), Buffer.from(y)))).toBe(Math.sign(b - a));
        expect(invertedNumberOf(x, chainPrefix(machineId))).toBe(a);
      }),
    );
  });

  it.each([
    'trust/',
    'trust/1',
    'trust/9007199254740992',
    'trust/9999999999999999',
    'trust/900719925474099x',
    'trust/a/9007199254740991',
    'trust/09007199254740991',
  ])('%s is no number', (name) => {
    expect(invertedNumberOf(name, trustPrefix)).toBeNull();
  });

  it('of segments sort as their numbers do', () => {
    const anyId = fc.record({ tenure: anySeq, number: fc.nat({ max: 2 ** 32 - 1 }) });
    fc.assert(
      fc.property(anyId, anyId, (a, b) => {
        const [x, y] = [segmentName(machineId, a), segmentName(machineId, b)];
        expect(Math.sign(compareSegments(a, b))).toBe(Math.sign(Buffer.compare(Buffer.from(x), Buffer.from(y))));
      }),
    );
  });
});

describe('finding the newest', () => {
  async function storeOf(names: readonly string[]): ReturnType<typeof targetOf> {
    const target = await targetOf();
    const bytes = new Uint8Array(1);
    for (const name of names) await target.putIfAbsent(name, bytes, { sha256: sha256(bytes) }, signal);
    return target;
  }
  const targetOf = async () => openMemoryTarget(new MemoryStore());

  it('is not misled by objects of another form that sort before or after', async () => {
    const strays = ['trust/0', 'trust/00/9007199254740900', 'trust/9007', 'trust/9007199254740989-copy', 'trust/z'];
    const target = await storeOf([...strays, trustName(0), trustName(1), trustName(2)]);
    expect(await newestNumber(target, trustPrefix, signal)).toBe(2);
  });

  it('finds nothing where there is nothing, or only strays', async () => {
    expect(await newestNumber(await storeOf([]), trustPrefix, signal)).toBeNull();
    expect(await newestNumber(await storeOf(['trust/0', 'trust/z']), trustPrefix, signal)).toBeNull();
  });

  it('lists each machine once, whatever else lies beside them', async () => {
    const ids = [filled(16, 0x01), filled(16, 0x22), filled(16, 0xff)];
    const entries = ids.flatMap((id) => [
      chainEntryName(id, 1),
      chainEntryName(id, 2),
      segmentName(id, { tenure: 1, number: 1 }),
    ]);
    const target = await storeOf([
      ...entries,
      'machines/0',
      'machines/0a/chain/1',
      'machines/zz/1',
      `machines/${'A'.repeat(32).toLowerCase()}x/1`,
    ]);
    const found: string[] = [];
    for await (const id of listMachineIds(target, signal)) found.push(toHex(id));
    expect(found).toEqual(ids.map(toHex));
  });
});
