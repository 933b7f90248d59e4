import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import { openChain } from '../../../replica/chain.ts';
import { summaryInterval } from '../../../replica/chain-entry.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { Fenced } from '../../../replica/put-once.ts';
import { type MemoryGate, type MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import type { ModelMachine } from '../../fakes/model-machine.ts';
import { appendEntry } from '../../protocol/append-entry.ts';
import { memorySite, workersOfFile } from '../../rig/memory-site.ts';
import type { ReplicaRig } from '../../rig/replica-rig.ts';

const workers = workersOfFile();
let store: MemoryStore;
let rig: ReplicaRig;
let machine: ModelMachine;
beforeEach(async () => {
  ({ store, rig, machine } = await memorySite(workers()));
  machine.addDisk('root', 200_000).write(0, new Uint8Array(100_000).fill(1));
  return () => rig[Symbol.asyncDispose]();
});

async function lock(times: number): Promise<void> {
  const repo = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), rig.signal);
  for (let i = 0; i < times; i++) {
    const chain = await openChain(repo, rig.machineId, rig.signal);
    if (chain === null) throw new Error('there is no chain to lock');
    await appendEntry(repo, chain, { type: 'lock', generation: i, untilMs: 0 }, rig.agent);
  }
}

describe('whether an agent may go on with a chain', () => {
  it('notices a takeover that lies further back than the entries it reads', async () => {
    await rig.protect(machine);
    await rig.protect(machine, { stateFolder: join(rig.folder, 'other-host'), takeOver: true });
    await lock(summaryInterval);
    await expect(rig.protect(machine)).rejects.toThrow(Fenced);
    await rig.protect(machine, { stateFolder: join(rig.folder, 'other-host') });
  });

  it('goes on after any number of locks by others', async () => {
    await rig.protect(machine);
    await lock(summaryInterval);
    await rig.protect(machine);
  });

  it('knows its own point when that arrives late, after another entry was tried in its place', async () => {
    await rig.protect(machine);
    let arrive: (() => void) | null = null;
    const late: MemoryGate = async ({ kind, name }) => {
      const isPublish = kind === 'put' && name.includes('/chain/') && store.names.some((n) => n.endsWith('740988'));
      if (!isPublish || arrive !== null) return { kind: 'done' };
      return {
        kind: 'late',
        later: (carryOut) => {
          arrive = carryOut;
        },
      };
    };
    machine.disks.get('root')?.write(0, new Uint8Array(1_000).fill(2));
    await expect(rig.protect(machine, { target: openMemoryTarget(store, late) })).rejects.toThrow('no answer');
    const meanwhile: MemoryGate = async ({ kind, name }) => {
      if (kind === 'put' && name.includes('/chain/')) arrive?.();
      return { kind: 'done' };
    };
    await expect(rig.protect(machine, { target: openMemoryTarget(store, meanwhile) })).rejects.toThrow(Fenced);
    const third = await rig.protect(machine);
    using reader = await rig.open();
    expect(reader.replica.points).toHaveLength(3);
    expect(reader.replica.points.at(-1)).toBe(third.point);
  });
});
