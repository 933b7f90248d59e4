import type { DataKey } from '../../crypto/data-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { openChain } from '../../replica/chain.ts';
import { KeyRing } from '../../replica/key-ring.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { withChanges } from './bucket-directory.ts';
import { type KeyOf, type Manipulation, manipulations, type Thoroughness } from './manipulations.ts';
import { kindOf } from './object-fields.ts';
import { askMarks, type Outcome, type Reading, readEverything, readRemains } from './read-everything.ts';
import { measureReadSets, type ReadSets, readSetKey } from './read-sets.ts';
import type { Specimen } from './specimen.ts';

/** Tries every manipulation, one at a time. */

const never = new AbortController().signal;

export interface Attempt {
  readonly manipulation: Manipulation;
  readonly outcome: Outcome;
  /** What those saw who read around the damage; only for the first manipulation of its sort. */
  readonly remains: Outcome | null;
}

export async function* runSweep(specimen: Specimen, how: Thoroughness): AsyncGenerator<Attempt> {
  await using workers = new RestoreWorkers(1);
  // From files, most of the time would go to opening them.
  const store = new MemoryStore();
  for (const [name, bytes] of specimen.objects) store.replace(name, bytes);
  const reading = { specimen, workers, target: openMemoryTarget(store), takes: () => true };
  const untouched = await readEverything(reading);
  if (untouched.noticed !== null) throw new Error('the untouched bucket does not read', { cause: untouched.error });
  const sets = await measureReadSets(specimen, workers);
  const seen = new Set<string>();
  for (const manipulation of manipulations(specimen, await dataKeys(specimen), how)) {
    const sort = `${manipulation.kind} ${manipulation.name} ${manipulation.where}`;
    const isNew = how.everything && !seen.has(sort);
    seen.add(sort);
    yield await attempt(store, { ...reading, takes: whatReads(manipulation, sets) }, manipulation, isNew);
  }
}

async function attempt(
  store: MemoryStore,
  reading: Reading,
  manipulation: Manipulation,
  andRemains: boolean,
): Promise<Attempt> {
  return await withChanges(store, reading.specimen.objects, manipulation.changes, async () => {
    if (manipulation.wasRight) return { manipulation, outcome: await askMarks(reading), remains: null };
    const outcome = await readEverything(reading);
    return { manipulation, outcome, remains: andRemains ? await readRemains(reading) : null };
  });
}

/** What is not about single segments, every point of the machine reads. */
function whatReads({ changes }: Manipulation, sets: ReadSets): Reading['takes'] {
  const names = [...changes.keys()];
  const isShared = names.some((name) => !name.startsWith('machines/'));
  const machines = new Set(names.map((name) => name.split('/')[1]));
  const onlySegments = names.every((name) => name.startsWith('machines/') && kindOf(name) === 'segment');
  return (machine, point) => {
    if (!isShared && !machines.has(machine)) return false;
    if (point === null || !onlySegments) return true;
    return names.some((name) => sets.get(readSetKey(machine, point))?.has(name));
  };
}

/** For telling the records of segments apart; an adversary needs less. */
async function dataKeys({ rig, machines }: Specimen): Promise<KeyOf> {
  const repo = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), never);
  const keys = new Map<string, DataKey>();
  for (const { id, hex } of machines) {
    const chain = await openChain(repo, id, never);
    if (chain === null) throw new Error('no chain');
    const ring = new KeyRing(repo, chain, [rig.provider]);
    for (const epoch of chain.state.epochs.keys()) keys.set(`${hex} ${epoch}`, (await ring.epoch(epoch, never)).key);
  }
  return (machine, epoch) => {
    const key = keys.get(`${machine} ${epoch}`);
    if (key === undefined) throw new Error(`machine ${machine} has no epoch ${epoch}`);
    return key;
  };
}
