import { setTimeout as sleep } from 'node:timers/promises';
import { type StoredObject, segmentsOf } from './bucket-folder.ts';
import { claim } from './claim.ts';
import { startFailkit } from './failkit-process.ts';
import type { Site } from './site.ts';

const lookEveryMs = 5;
const segmentsBeforeKill = 3;

/** Starts a sync, kills it without warning once it has stored a few segments, and returns those. */
export async function killDuringUpload(site: Site): Promise<readonly StoredObject[]> {
  const before = new Set(segmentsOf(site.bucket).map(({ name }) => name));
  const fresh = () => segmentsOf(site.bucket).filter(({ name }) => !before.has(name));
  const sync = startFailkit(['--config', 'slow-uplink.yaml', 'sync'], site.folder, site.signal);
  const watch = new AbortController();
  const ended = sync.ended.finally(() => watch.abort());
  while (fresh().length < segmentsBeforeKill && !watch.signal.aborted) await sleep(lookEveryMs);
  sync.process.kill('SIGKILL');
  const { killedBy, stderr } = await ended;
  claim(killedBy === 'SIGKILL', `the sync is killed before its end: ${stderr}`);
  return fresh();
}
