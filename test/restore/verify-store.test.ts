import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLocalKeyFile, openLocalKey } from '../../crypto/local-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import type { VerifyLevel, VerifyReport } from '../../restore/verify/finding.ts';
import { verifyReplica } from '../../restore/verify/verify-replica.ts';
import { AccessDenied, StoreUnavailable } from '../../storage-targets/errors.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';

const block = 65_536;
const store = new MemoryStore();
let rig: ReplicaRig;
let point: number;

beforeAll(async () => {
  rig = await ReplicaRig.create(openMemoryTarget(store));
  const machine = new ModelMachine();
  machine.addDisk('system', 700 * block).write(0, randomBytes(600 * block));
  ({ point } = await rig.protect(machine, { segmentBytes: 300_000 }));
});
afterAll(() => rig[Symbol.asyncDispose]());

async function verify(level: VerifyLevel, target: StorageTarget, provider = rig.provider): Promise<VerifyReport> {
  const repo = await openRepository(target, rootFingerprint(rig.root.publicKey), rig.signal);
  using replica = await OpenReplica.open(repo, rig.machineId, [provider], rig.signal, { salvage: true });
  const options = { level, points: null, chain: false, workers: rig.workers.restore, inFlightMax: 4 };
  return await verifyReplica(replica, options, rig.signal);
}

const segments = (): readonly string[] => store.names.filter((name) => name.includes('/segments/'));

describe('a store that records checksums', () => {
  it('tells an object that was put with other bytes, without handing out one', async () => {
    const copy = store.copy();
    const name = segments()[3] ?? '';
    const other = Uint8Array.from(copy.bytesOf(name) ?? []).fill(0, 500, 501);
    copy.replace(name, other);
    const report = await verify('checksum', openMemoryTarget(copy));
    expect(report).toMatchObject({ counts: { unprovable: 0 }, doubtful: [point] });
    expect(report.findings).toMatchObject([{ object: name, code: 'OBJECT_ALTERED' }]);
    expect(report.readBytes).toBeLessThan(100_000);
  });

  it('is believed at level checksum, and found out at level ciphertext, when it hands out other bytes than were put', async () => {
    const target = rotten(openMemoryTarget(store), segments()[3] ?? '');
    expect(await verify('checksum', target)).toMatchObject({ findings: [], whole: [point] });
    expect((await verify('ciphertext', target)).findings).toMatchObject([{ code: 'OBJECT_ALTERED' }]);
  });
});

describe('a store that does not let us look', () => {
  it('at one object is no damage, and nothing to repair; the point is in doubt', async () => {
    const name = segments()[2] ?? '';
    for (const refusal of [new AccessDenied('no'), new StoreUnavailable('away')]) {
      const target = refusing(openMemoryTarget(store), (asked) => asked === name, refusal);
      for (const level of ['checksum', 'ciphertext', 'full'] as const) {
        const report = await verify(level, target);
        expect(report.findings).toMatchObject([{ object: name, kind: 'unchecked', code: refusal.code }]);
        expect(report).toMatchObject({ whole: [], hurt: [], doubtful: [point], repairable: [] });
      }
    }
  });

  it('at anything ends in its error rather than in a list of all there is', async () => {
    const away = new StoreUnavailable('away');
    const target = refusing(openMemoryTarget(store), (name) => name.includes('/segments/'), away);
    expect(segments().length).toBeGreaterThan(64);
    for (const level of ['checksum', 'ciphertext', 'full'] as const)
      await expect(verify(level, target)).rejects.toBe(away);
  });

  it('is left at once when the run is cancelled', async () => {
    const cancelled = new AbortController();
    const target = refusing(openMemoryTarget(store), () => false, null);
    const repo = await openRepository(target, rootFingerprint(rig.root.publicKey), rig.signal);
    using replica = await OpenReplica.open(repo, rig.machineId, [rig.provider], rig.signal);
    cancelled.abort(new Error('enough'));
    const options = {
      level: 'full',
      points: null,
      chain: false,
      workers: rig.workers.restore,
      inFlightMax: 4,
    } as const;
    await expect(verifyReplica(replica, options, cancelled.signal)).rejects.toThrow('enough');
  });
});

describe('a key that opens nothing', () => {
  it('is refused at level full, and not needed at the others', async () => {
    await createLocalKeyFile(`${rig.folder}/other.key`);
    const other = await openLocalKey(`${rig.folder}/other.key`);
    await expect(verify('full', openMemoryTarget(store), other)).rejects.toMatchObject({ code: 'KEY_REFUSED' });
    expect(await verify('ciphertext', openMemoryTarget(store), other)).toMatchObject({ findings: [], whole: [point] });
  });
});

/** Hands out one object with a bit flipped, and knows nothing of it. */
function rotten(target: StorageTarget, object: string): StorageTarget {
  return {
    ...target,
    async get(name, range, signal) {
      const bytes = Uint8Array.from(await target.get(name, range, signal));
      if (name === object) bytes[400] = (bytes[400] ?? 0) ^ 4;
      return bytes;
    },
  };
}

function refusing(target: StorageTarget, matches: (name: string) => boolean, refusal: Error | null): StorageTarget {
  return {
    ...target,
    async get(name, range, signal) {
      if (refusal !== null && matches(name)) throw refusal;
      return await target.get(name, range, signal);
    },
    async head(name, signal) {
      if (refusal !== null && matches(name)) throw refusal;
      return await target.head(name, signal);
    },
  };
}
