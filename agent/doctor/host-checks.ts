import { accessSync, constants, statfsSync, statSync } from 'node:fs';
import { totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { keyIdOf, type PublicKey } from '../../crypto/signing.ts';
import { loadSigningKeyFile } from '../../crypto/signing-key-file.ts';
import { toHex } from '../../replica/encoding.ts';
import type { Config } from '../config/config-schema.ts';
import { memoryNeededBytes, workersOf } from '../memory-budget.ts';
import { formatBytes, plural } from '../quantities.ts';
import { StateDiskFull, StateUnusable } from '../state/errors.ts';
import { inStateFolder } from '../state/state-folder.ts';
import { type Checked, doubtful, good, type Verdict } from './finding.ts';

/** What can be checked on this host alone. Nothing is made, changed or mended. */

const leastNode = [24, 5] as const;
const writableByOthers = 0o022;
const openToOthers = 0o077;
/** Of the size of the disks; docs/operations/when-a-run-stops.md promises it. */
const stateShareOfDisks = 0.001;
const stateBytesMin = 64 * 2 ** 20;

export function checkConfigFile(file: string, config: Config): Verdict {
  const { mode } = statSync(file);
  if (process.platform !== 'win32' && (mode & writableByOthers) !== 0) {
    return doubtful(
      `${file} may be changed by others (mode ${modeText(mode)}): they decide where disks are sent to`,
      `chmod go-w ${file}`,
    );
  }
  return good(`${file}: ${plural(config.machines.length, 'machine')}`);
}

export function checkNode(): Verdict {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const what = `${process.versions.node} on ${process.platform} ${process.arch}`;
  if (major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1])) return good(what);
  return doubtful(
    `${what} is older than ${leastNode.join('.')}`,
    'run npm ci, which installs the right one, or update Node',
  );
}

export function checkMemory(config: Config): Verdict {
  const { memoryBytes, workers } = config.limits;
  const needed = memoryNeededBytes(config);
  const limit = `limits.memoryMiB is ${memoryBytes / 2 ** 20}`;
  if (needed > memoryBytes) {
    return doubtful(
      `${limit}, but a run with ${plural(workersOf(config), 'worker')} takes ${formatBytes(needed)}`,
      `raise limits.memoryMiB to ${Math.ceil(needed / 2 ** 20)}${workers === null ? '' : ', or lower limits.workers'}`,
    );
  }
  const physical = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  if (memoryBytes > physical)
    return doubtful(`${limit}, and this host has ${formatBytes(physical)}`, 'lower limits.memoryMiB');
  return good(`up to ${formatBytes(memoryBytes)} of ${formatBytes(physical)}, ${plural(workersOf(config), 'worker')}`);
}

/** `disksBytes`: of all machines, as far as they could be measured. */
export function checkStateFolder({ state }: Config, disksBytes: number): Verdict {
  const found = inStateFolder(state, () => statSync(state, { throwIfNoEntry: false }));
  const nearest = found === undefined ? nearestFolder(state) : state;
  inStateFolder(state, () => accessSync(nearest, constants.R_OK | constants.W_OK | constants.X_OK));
  if (found?.isDirectory() === false) throw new StateUnusable(`${state} is not a folder`);
  const { bavail, bsize } = inStateFolder(state, () => statfsSync(nearest));
  const free = bavail * bsize;
  const wanted = Math.max(stateBytesMin, disksBytes * stateShareOfDisks);
  if (free === 0) throw new StateDiskFull(`the disk of ${state} is full`);
  if (free < wanted) {
    const what = `${state} has ${formatBytes(free)} free, and may come to need ${formatBytes(wanted)}`;
    return doubtful(what, 'make room on its disk, or move state to another one');
  }
  if (found === undefined)
    return good(`${state} is not there yet: the first command makes it; ${formatBytes(free)} free`);
  if (process.platform !== 'win32' && (found.mode & openToOthers) !== 0) {
    return doubtful(
      `${state} is open to others (mode ${modeText(found.mode)})`,
      `chmod 700 ${state}; each run does it, too. Think about who read it until now`,
    );
  }
  return good(`${state}: private, writable, ${formatBytes(free)} free`);
}

export async function checkAgentKey({ state }: Config): Promise<Checked<PublicKey>> {
  const { publicKey } = await loadSigningKeyFile(agentKeyFile(state));
  return { verdict: good(`key ${toHex(keyIdOf(publicKey))}, private`), value: publicKey };
}

export function hasAgentKey({ state }: Config): boolean {
  return statSync(agentKeyFile(state), { throwIfNoEntry: false }) !== undefined;
}

function agentKeyFile(state: string): string {
  return join(state, 'agent.key');
}

function nearestFolder(path: string): string {
  const above = dirname(path);
  return above === path || statSync(above, { throwIfNoEntry: false }) !== undefined ? above : nearestFolder(above);
}

function modeText(mode: number): string {
  return (mode & 0o777).toString(8).padStart(4, '0');
}
