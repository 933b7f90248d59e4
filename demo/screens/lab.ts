import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { environment } from '../programs.ts';
import { clone } from '../real-files.ts';
import { type Recording, recordTerminal } from './pseudo-terminal.ts';

/** A site whose terminal is worth a picture: machines, their disks, a configuration. */

const mebibyte = 2 ** 20;
const longAgoMs = 3_600_000;

export interface Lab {
  readonly folder: string;
  readonly signal: AbortSignal;
}

interface Machine {
  readonly name: string;
  readonly disks: readonly string[];
}

export function makeLab(root: string, signal: AbortSignal): Lab {
  const folder = join(root, 'site');
  mkdirSync(folder);
  makeDisk({ folder, signal }, 'accounting-system', 2_048, 640);
  makeDisk({ folder, signal }, 'accounting-data', 1_024, 300);
  makeDisk({ folder, signal }, 'web', 512, 96);
  makeDisk({ folder, signal }, 'build', 512, 64);
  return { folder, signal };
}

/** `more`: further keys, as YAML. */
export function configure(lab: Lab, machines: readonly Machine[], more = ''): void {
  const lines = machines.map(({ name, disks }) => {
    const listed = disks.map((disk) => `{ label: ${disk.split('-').at(-1)}, path: ${disk}.img }`).join(', ');
    return `  - name: ${name}\n    source: { type: image, disks: [${listed}] }\n`;
  });
  const head = `repository: { target: filesystem, directory: ../bucket }
keys: { provider: local-key, file: local.key }
state: state
machines:
`;
  writeFileSync(join(lab.folder, 'failkit.yaml'), head + lines.join('') + more);
}

/** Real programs, and free space between and behind them. */
function makeDisk(lab: Lab, name: string, capacityMib: number, filledMib: number): void {
  const path = join(lab.folder, `${name}.img`);
  const program = readFileSync(process.execPath);
  const descriptor = openSync(path, 'wx');
  try {
    ftruncateSync(descriptor, capacityMib * mebibyte);
    const pieceBytes = 32 * mebibyte;
    const pieces = Math.ceil((filledMib * mebibyte) / pieceBytes);
    const step = Math.floor((capacityMib * mebibyte) / pieces);
    for (let i = 0; i < pieces; i++) {
      const from = (i * 7 * mebibyte) % Math.max(1, program.length - pieceBytes);
      writeSync(descriptor, program.subarray(from, from + pieceBytes), 0, pieceBytes, i * step);
    }
  } finally {
    closeSync(descriptor);
  }
  settle(lab, name);
}

/** Rewrites a few places, as a day of work does. */
export function change(lab: Lab, name: string, places: number): void {
  const descriptor = openSync(join(lab.folder, `${name}.img`), 'r+');
  try {
    for (let i = 0; i < places; i++) writeSync(descriptor, `edited ${i} at ${Date.now()}`, i * 3 * mebibyte);
  } finally {
    closeSync(descriptor);
  }
  settle(lab, name);
}

/** Old enough not to be taken for one that is in use. */
function settle(lab: Lab, name: string): void {
  const longAgo = new Date(Date.now() - longAgoMs);
  utimesSync(join(lab.folder, `${name}.img`), longAgo, longAgo);
}

/** Runs failkit on a terminal that wide. */
export async function atTerminal(lab: Lab, args: readonly string[], columns: number): Promise<Recording> {
  const bin = join(clone, 'bin');
  const path = `${bin}:${environment().PATH}`;
  const options = { columns, cwd: lab.folder, environment: { ...environment(), PATH: path, LC_ALL: 'C.UTF-8' } };
  return await recordTerminal(['failkit', ...args], { ...options, signal: lab.signal });
}
