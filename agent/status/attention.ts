import { sameBytes, toHex } from '../../replica/encoding.ts';
import { formatBytes, formatDuration } from '../quantities.ts';
import { type ExitCode, exitCodes } from '../remedy.ts';
import { type MachineStatus, rpoNow } from './machine-status.ts';

/** What a person has to do something about. */
export interface Attention {
  readonly state: 'damaged' | 'fenced' | 'late';
  readonly what: string;
  readonly fix: string;
  readonly exitCode: ExitCode;
}

/** What a status is measured by. */
export interface Expectation {
  /** Null: this host has no key of its own yet. */
  readonly ownKeyId: Uint8Array | null;
  readonly maxRpoMs: number | null;
}

export function attentionTo(status: MachineStatus, expected: Expectation): readonly Attention[] {
  return [damage(status), fencing(status, expected), lateness(status, expected)].filter((found) => found !== null);
}

function damage({ local, machine }: MachineStatus): Attention | null {
  const damaged = local?.damagedSegments ?? 0;
  if (damaged === 0) return null;
  const what = `verify found ${damaged} damaged ${damaged === 1 ? 'segment' : 'segments'}`;
  return { state: 'damaged', what, fix: `failkit sync ${machine} sends them again`, exitCode: exitCodes.damage };
}

function fencing({ replica }: MachineStatus, { ownKeyId }: Expectation): Attention | null {
  if (replica === null || ownKeyId === null || sameBytes(replica.ownerKeyId, ownKeyId)) return null;
  return {
    state: 'fenced',
    what: `agent ${toHex(replica.ownerKeyId)} took the machine over: this host is fenced`,
    fix: 'take it out of the configuration here, or run failkit sync --take-over if this host is to protect it',
    exitCode: exitCodes.replica,
  };
}

function lateness(status: MachineStatus, { maxRpoMs }: Expectation): Attention | null {
  if (maxRpoMs === null) return null;
  const rpo = rpoNow(status);
  if (rpo !== null && rpo.ms <= maxRpoMs) return null;
  const is = rpo === null ? 'there is no recovery point' : `RPO is ${formatDuration(rpo.ms)}`;
  return {
    state: 'late',
    what: `${is}, and ${formatDuration(maxRpoMs)} is the most it may be`,
    fix: rpo === null ? `failkit seed ${status.machine}` : `failkit sync ${status.machine}, and see why it did not run`,
    exitCode: exitCodes.replica,
  };
}

/** What is worth knowing, and nobody has to act on. */
export function remarksOn({ replica, local, machineId }: MachineStatus): readonly string[] {
  const newest = replica?.newest ?? null;
  const manifest = newest?.manifest ?? null;
  const remarks: (string | null)[] = [
    machineId === null && local?.running !== true
      ? 'never seeded from this host; whether another host protects it, failkit points shows'
      : null,
    newest !== null && manifest === null
      ? 'another host published this point: its snapshot time is sealed, RPO counts from publishing'
      : null,
    manifest !== null && manifest.excluded.length > 0
      ? `partial: without ${manifest.excluded.map(({ label }) => label).join(', ')}`
      : null,
    manifest?.consistency === 'inconsistent' ? 'inconsistent: the disks changed while they were read' : null,
    local?.running === true ? 'a run is under way' : null,
    local?.unfinished && local.running === false ? unfinished(local.unfinished) : null,
  ];
  return remarks.filter((remark) => remark !== null);
}

function unfinished({ segments, bytes }: { readonly segments: number; readonly bytes: number }): string {
  return `the last run did not end: ${segments} ${segments === 1 ? 'segment' : 'segments'}, ${formatBytes(bytes)}, are stored for the next one to adopt`;
}
