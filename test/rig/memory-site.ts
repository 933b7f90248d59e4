import { afterAll, beforeAll } from 'vitest';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig } from './replica-rig.ts';
import { RigWorkers } from './rig-workers.ts';

/** The threads of all tests of a file. */
export function workersOfFile(): () => RigWorkers {
  let workers: RigWorkers;
  beforeAll(() => {
    workers = new RigWorkers();
  });
  afterAll(() => workers[Symbol.asyncDispose]());
  return () => workers;
}

export interface MemorySite {
  readonly store: MemoryStore;
  readonly rig: ReplicaRig;
  readonly machine: ModelMachine;
}

/** A store in memory, the rig of a replica in it, and a machine, with one clock. Whoever asks disposes the rig. */
export async function memorySite(workers: RigWorkers, now: () => number = Date.now): Promise<MemorySite> {
  const store = new MemoryStore();
  const rig = await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true });
  const machine = new ModelMachine();
  rig.now = now;
  machine.now = now;
  return { store, rig, machine };
}
