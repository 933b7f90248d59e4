import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { segmentsPrefix } from '../../replica/names.ts';
import { type MemoryGate, MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig, wrapOnly } from '../rig/replica-rig.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { filled } from './guest.ts';

const segmentBytes = 300_000;
const dataBytes = 3 * 2 ** 20;
const segmentsInFlightMax = 3;
/** What a run sends besides blocks: attachments, pages, and the last segment of each run, which is not full. */
const overheadBytes = 2 * segmentBytes;

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/** From a put of a segment on, nothing reaches the store. */
function dies(afterSegments: number): MemoryGate {
  let segments = 0;
  return async ({ kind, name }) => {
    if (kind === 'put' && name.includes('/segments/')) segments++;
    return { kind: segments > afterSegments ? 'lost' : 'done' };
  };
}

test('a first copy that is interrupted over and over goes on where it stopped', async () => {
  const plan = fc.record({
    deaths: fc.array(fc.nat({ max: 6 }), { minLength: 1, maxLength: 4 }),
    access: fc.constantFrom('full' as const, 'write-only' as const),
    tracks: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(plan, async ({ deaths, access, tracks }) => {
      const store = new MemoryStore();
      await using rig = await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true });
      const machine = new ModelMachine();
      const style = { grain: 4_099, zeros: 'left-out', tracks, overReports: false } as const;
      machine.addDisk('root', 4_000_001, style).write(0, filled(dataBytes, 1, true));
      machine.addDisk('data', 300_000, style).write(0, filled(100_000, 2, true));
      machine.attachments.set('nvram', filled(10_000, 3, true));
      const provider = access === 'full' ? rig.provider : wrapOnly(rig.provider);
      const options = { access, provider, segmentBytes, segmentsInFlightMax };
      const storedBytes = (): number =>
        store.names
          .filter((name) => name.startsWith(segmentsPrefix(rig.machineId)))
          .reduce((sum, name) => sum + (store.bytesOf(name)?.length ?? 0), 0);

      let before = 0;
      for (const afterSegments of deaths) {
        const target = openMemoryTarget(store, dies(afterSegments));
        const failed = await rig.protect(machine, { ...options, target }).then(
          () => false,
          () => true,
        );
        // All that was left fitted in before the store went away: there is nothing to go on with.
        if (!failed) return;
        expect(storedBytes()).toBeGreaterThanOrEqual(before);
        before = storedBytes();
      }
      const { point, manifest, adopted } = await rig.protect(machine, options);
      const sentAgain = storedBytes() - dataBytes - 100_000;
      expect(sentAgain).toBeLessThanOrEqual(overheadBytes + (deaths.length + 1) * 20_000);
      expect(adopted).toBe(before > 0);
      expect(manifest.uploadedBytes).toBe(storedBytes() - before);
      for (const [label, content] of machine.newest)
        expect(Buffer.compare(await rig.restore(point, label), content.bytes())).toBe(0);
    }),
    { numRuns: 6 },
  );
});
