import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { protectMachine } from '../../../agent/protect/protect-machine.ts';
import { noProgress } from '../../../agent/protect/replicate-snapshot.ts';
import { MachineState } from '../../../agent/state/machine-state.ts';
import { openLocalKey } from '../../../crypto/local-key.ts';
import { loadSigningKeyFile } from '../../../crypto/signing-key-file.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { openFilesystemTarget } from '../../../storage-targets/filesystem.ts';
import { ScatteredDisk, type ScatteredDiskFields } from './scattered-disk.ts';

/** One sync of a scattered disk in a process of its own, as cold as can be: prints what it took. */

/** What `prepareSync` left in the folder. */
export interface SyncProcessFields {
  readonly fingerprint: string;
  /** In hex. */
  readonly machineId: string;
  readonly disk: ScatteredDiskFields;
}

export interface SyncProcessResult {
  readonly point: number;
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly changedBytes: number;
  readonly uploadedBytes: number;
  /** The high-water mark of resident memory, as the kernel counts it. */
  readonly peakBytes: number;
}

const [folder = '.', snapshots = '0'] = process.argv.slice(2);
const fields: SyncProcessFields = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8'));
const started = performance.now();
const { signal } = new AbortController();
await using target = await openFilesystemTarget({ directory: join(folder, 'bucket') });
const progress = noProgress();
using state = new MachineState(join(folder, 'state'), 'machine');
const { point } = await protectMachine(
  {
    repo: await openRepository(target, fields.fingerprint, signal),
    machineId: Buffer.from(fields.machineId, 'hex'),
    machineName: 'machine',
    connection: new ScatteredDisk(fields.disk, Number(snapshots)),
    provider: await openLocalKey(join(folder, 'local.key')),
    agent: await loadSigningKeyFile(join(folder, 'agent.pem')),
    state,
    progress,
    now: Date.now,
    options: {
      access: 'full',
      sourceKind: 'image',
      snapshot: { quiesce: 'off', whenChanging: 'refuse' },
      resync: false,
      takeOver: false,
      segmentBytes: 8 * 2 ** 20,
      compression: 1,
      // What `limits.memoryMiB: 256` makes of a machine with several cores.
      workers: 1,
      segmentsInFlightMax: 2,
      // Of a scattered disk only what changed is there to be read.
      spotCheck: { everyMs: 0, bytesPerRunMax: 0 },
      compaction: { share: 0, bytesPerRunMax: 0 },
      changeAlarm: { enabled: true, fromBytes: 512 * 2 ** 20 },
    },
  },
  signal,
);
const { user, system } = process.cpuUsage();
const result: SyncProcessResult = {
  point,
  wallMs: performance.now() - started,
  cpuMs: (user + system) / 1000,
  changedBytes: progress.changedBytes,
  uploadedBytes: progress.uploadedBytes,
  peakBytes: Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024,
};
process.stdout.write(`${JSON.stringify(result)}\n`);
