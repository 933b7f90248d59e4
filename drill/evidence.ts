import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { DrillResult, MachineResult } from './drill.ts';

/** What is kept of a drill: for a program, for a person, and a list of checksums over both and all that the machines showed. */

export async function writeEvidence(folder: string, result: DrillResult, version: string): Promise<void> {
  const write = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text, { mode: 0o600 });
  await write('result.json', `${JSON.stringify({ failkit: version, ...result }, null, 2)}\n`);
  await write('summary.txt', `${summaryOf(result, version).join('\n')}\n`);
  const files = (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
  const sums: string[] = [];
  for (const file of files) sums.push(`${await sha256Of(join(folder, file))}  ${file}`);
  await write('SHA256SUMS', `${sums.join('\n')}\n`);
}

/** Plain sentences, for whoever has to sign that the drill took place. */
function summaryOf(result: DrillResult, version: string): readonly string[] {
  const passed = result.machines.filter(({ outcome }) => outcome === 'passed').length;
  return [
    `Drill of ${result.machines.length === 1 ? 'one machine' : `${result.machines.length} machines`}: ${result.outcome.toUpperCase()} (${passed} of ${result.machines.length} passed).`,
    `Begun ${result.startedAt}, over after ${seconds(result.durationMs)}. failkit ${version}, QEMU ${result.qemu}, ${result.accelerator}.`,
    result.network === 'none'
      ? 'The machines had no network.'
      : 'The machines had a network among themselves, which leads nowhere else.',
    ...result.machines.flatMap((machine) => ['', ...machineLines(machine)]),
    '',
    result.sourceUntouched
      ? 'The disks that the machines were booted from are untouched.'
      : 'A DISK THAT A MACHINE WAS BOOTED FROM WAS WRITTEN TO: see the findings.',
    result.cleanedUp
      ? 'Every process, overlay and socket of the drill is gone.'
      : 'Something of the drill is still there:',
    ...result.findings.map(({ code, what }) => `  ${code}: ${what}`),
  ];
}

function machineLines(machine: MachineResult): readonly string[] {
  const os = machine.guest?.os;
  const osName = typeof os === 'object' && os !== null && 'pretty-name' in os ? String(os['pretty-name']) : null;
  return [
    `${machine.outcome === 'passed' ? 'PASSED' : 'FAILED'}  ${machine.machine}, recovery point ${machine.point} of ${machine.snapshotTime} (${machine.consistency})`,
    ...machine.findings.map(({ code, what }) => `  ${code}: ${what}`),
    ...machine.excludedDisks.map((label) => `  Disk ${label} is not in this recovery point.`),
    ...(machine.rtoMs === null ? [] : [`  Usable ${seconds(machine.rtoMs)} after the drill turned to it.`]),
    `  ${machine.phases.map(({ phase, tookMs }) => `${phase} ${seconds(tookMs)}`).join(', ')}`,
    ...(osName === null ? [] : [`  Its guest agent says: ${osName}`]),
    ...machine.checks.map(({ check, outcome, what }) => `  ${outcome.padEnd(7)}  ${check}: ${what}`),
    `  Its consoles and its screen are in ${machine.evidence}/.`,
  ];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
