import { accessSync, constants, readFileSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import type { Accelerator, DrillCheck } from '../../drill/drill.ts';
import { parseDuration } from '../quantities.ts';

/** What the command line of `failkit drill` says, as precise values. */

/** Options of a drill that contradict each other, or the machines that it names. */
export class DrillOptionInvalid extends Error {
  readonly code = 'DRILL_OPTION_INVALID';
  override readonly name = 'DrillOptionInvalid';
}

/** A check with the machine that it is for; null: for each. */
export interface CheckWanted {
  readonly machine: string | null;
  readonly check: DrillCheck;
}

const portMax = 65_535;
const machinesMax = 16;

/** `port=22`, `command=systemctl is-system-running`, either with `MACHINE:` in front. */
export function parseCheck(text: string, earlier: readonly CheckWanted[] = []): readonly CheckWanted[] {
  const [, machine = null, kind, value = ''] =
    /^(?:(?!port=|command=)(.+?):)?(port|command)=([\s\S]*)$/.exec(text) ?? [];
  if (kind === 'port' && /^\d+$/.test(value) && Number(value) >= 1 && Number(value) <= portMax)
    return [...earlier, { machine, check: { kind, port: Number(value) } }];
  if (kind === 'command' && value.trim() !== '') return [...earlier, { machine, check: { kind, command: value } }];
  throw new InvalidArgumentError('give port=22 or command=…, with MACHINE: in front when it is for one machine only.');
}

export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`give a whole number from ${min} to ${max}.`);
  };
}

/** Bare numbers are seconds. */
export function durationOption(text: string): number {
  const durationMs = /^\d+$/.test(text) ? Number(text) * 1000 : parseDuration(text);
  if (durationMs === null || durationMs === 0) throw new InvalidArgumentError('give it as 300, 90s or 10min.');
  return durationMs;
}

/** Those that `--order` names come first. Throws DrillOptionInvalid. */
export function inOrder(machines: readonly string[], order: string | undefined): readonly string[] {
  if (machines.length > machinesMax)
    throw new DrillOptionInvalid(
      `${machines.length} machines at once: a drill runs at most ${machinesMax}; name the ones that belong together`,
    );
  const first = order === undefined ? [] : order.split(',').map((name) => name.trim());
  for (const [index, name] of first.entries()) {
    if (!machines.includes(name))
      throw new DrillOptionInvalid(
        `--order names ${name || 'nothing'}, which is not drilled; there is ${machines.join(', ')}`,
      );
    if (first.indexOf(name) !== index) throw new DrillOptionInvalid(`--order names ${name} twice`);
  }
  return [...first, ...machines.filter((name) => !first.includes(name))];
}

/** Throws DrillOptionInvalid for a check of a machine that is not drilled. */
export function checksFor(
  machine: string,
  checks: readonly CheckWanted[],
  all: readonly string[],
): readonly DrillCheck[] {
  for (const { machine: wanted } of checks)
    if (wanted !== null && !all.includes(wanted))
      throw new DrillOptionInvalid(`--check is for ${wanted}, which is not drilled; there is ${all.join(', ')}`);
  return checks.filter(({ machine: wanted }) => wanted === null || wanted === machine).map(({ check }) => check);
}

/**
 * A device that opens proves nothing: there are hosts whose /dev/kvm makes a machine whose kernel never starts. Those
 * show neither Intel's nor AMD's virtualisation.
 */
export function accelerator(wanted: Accelerator | 'auto'): Accelerator {
  if (wanted !== 'auto') return wanted;
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8')) ? 'kvm' : 'tcg';
  } catch {
    return 'tcg';
  }
}
