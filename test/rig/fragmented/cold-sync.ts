import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import { toHex } from '../../../replica/encoding.ts';
import type { ReplicaRig } from '../replica-rig.ts';
import type { FragmentedMap, FragmentedPage } from './fragmented-map.ts';
import { publishFragmented } from './fragmented-replica.ts';
import type { ScatteredDiskFields } from './scattered-disk.ts';
import type { SyncProcessFields, SyncProcessResult } from './sync-process.ts';

/** A replica with a fragmented map, and syncs of it that begin with nothing in memory: each is a process of its own. */

const diskId = new Uint8Array(16).fill(7);

/** `rig` has a directory of its own for a bucket. `pages`: what the local state is to hold of the map. */
export async function prepareColdSync(
  rig: ReplicaRig,
  disk: ScatteredDiskFields,
  pages: (map: FragmentedMap) => Iterable<FragmentedPage>,
): Promise<FragmentedMap> {
  const pem = rig.agent.exportPem();
  writeFileSync(join(rig.folder, 'agent.pem'), pem, { mode: 0o600 });
  pem.fill(0);
  const fields: SyncProcessFields = {
    fingerprint: rootFingerprint(rig.root.publicKey),
    machineId: toHex(rig.machineId),
    disk,
  };
  writeFileSync(join(rig.folder, 'run.json'), JSON.stringify(fields));
  return await publishFragmented(rig, { ...disk, diskId }, pages);
}

/** Syncs snapshot number `snapshot`, counted from 1, in a process that is started as `bin/failkit` starts the agent. */
export async function coldSync(rig: ReplicaRig, snapshot: number): Promise<SyncProcessResult> {
  const { flags, env } = launcherSettings();
  const script = join(import.meta.dirname, 'sync-process.ts');
  const args = [...flags, script, rig.folder, String(snapshot - 1)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env });
  return JSON.parse(stdout);
}

/** What `bin/failkit` gives to Node and to the C library. */
function launcherSettings(): { readonly flags: readonly string[]; readonly env: Record<string, string> } {
  const text = readFileSync(join(import.meta.dirname, '../../../bin/failkit'), 'utf8');
  const flags = /^exec "\$node" (.*) "\$main"/m.exec(text)?.[1]?.split(' ');
  const env = Object.fromEntries([...text.matchAll(/(MALLOC_\w+)="\$\{\w+:-(\d+)\}"/g)].map(([, k, v]) => [k, v]));
  if (flags === undefined || Object.keys(env).length === 0)
    throw new Error('bin/failkit starts Node in another way now');
  return { flags, env };
}
