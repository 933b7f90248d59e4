/** What is drilled, how, and what came of it. */

/** One machine as of one recovery point. Its first disk is the one that it boots from first. */
export interface DrillMachine {
  readonly name: string;
  readonly machineId: string;
  readonly point: number;
  readonly snapshotTime: string;
  readonly consistency: string;
  /** Disks that the point leaves out. */
  readonly excluded: readonly string[];
  /** From the start of the drill of this machine until its point was open. */
  readonly openMs: number;
  readonly disks: readonly DrillDisk[];
  /** The variables of its UEFI firmware as of that point; null where none are kept. */
  readonly uefiVariables: Uint8Array | null;
  readonly checks: readonly DrillCheck[];
}

export interface DrillDisk {
  readonly label: string;
  readonly capacityBytes: number;
  /** Makes its content readable for QEMU; `folder` is gone after the drill. */
  open(folder: string, signal: AbortSignal): Promise<BackingDisk>;
}

/** A raw disk that nobody writes to: what the machine writes goes into an overlay. */
export interface BackingDisk extends AsyncDisposable {
  /** A path or an NBD URI, as `qemu-img create -b` takes it. */
  readonly place: string;
  /** Fills `into` exactly. */
  read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void>;
  /** What is wrong with it by now: it was written to, or parts of it could not be had. */
  findings(signal: AbortSignal): Promise<readonly DrillFinding[]>;
  /** Bytes that were fetched from the store for it so far. */
  readonly fetchedBytes: number;
}

export type DrillCheck =
  | { readonly kind: 'port'; readonly port: number }
  | { readonly kind: 'command'; readonly command: string };

export const reaches = ['firmware', 'kernel', 'agent'] as const;
/** How far a machine has to get. */
export type Reach = (typeof reaches)[number];
export type Firmware = 'bios' | 'uefi';
export const diskBuses = ['virtio', 'sata', 'scsi'] as const;
export type DiskBus = (typeof diskBuses)[number];
export type Accelerator = 'kvm' | 'tcg';

export interface DrillOptions {
  readonly memoryMiB: number;
  readonly cpus: number;
  /** `auto`: UEFI where the point has its variables, or where the disk can't be booted in another way. */
  readonly firmware: Firmware | 'auto';
  /** `isolated`: one among the machines of this drill, which leads nowhere else. */
  readonly network: 'none' | 'isolated';
  readonly accelerator: Accelerator;
  readonly diskBus: DiskBus;
  readonly reach: Reach;
  /** For each machine, from its power-on until it has reached that and passed its checks. */
  readonly timeoutMs: number;
  /** For overlays and restored disks, in a folder of their own that is removed. */
  readonly workFolder: string;
  /** Exists, and is empty. */
  readonly evidenceFolder: string;
}

/** Why a machine failed its drill, or the drill itself was not clean. docs/operations/drill.md has all of them. */
export interface DrillFinding {
  readonly code: FindingCode;
  readonly what: string;
}

export const findingCodes = [
  'POINT_UNUSABLE',
  'NO_BOOTABLE_DEVICE',
  'KERNEL_NOT_LOADED',
  'ROOT_NOT_MOUNTED',
  'KERNEL_PANIC',
  'EMERGENCY_MODE',
  'FILE_SYSTEM_ERRORS',
  'FIRMWARE_SILENT',
  'KERNEL_SILENT',
  'AGENT_SILENT',
  'MACHINE_ENDED',
  'DISK_FAILED',
  'NO_SCREENSHOT',
  'PORT_CLOSED',
  'COMMAND_FAILED',
  'POINT_DAMAGED',
  'STORE_FAILED',
  'SOURCE_WRITTEN',
  'LEFT_BEHIND',
] as const;
export type FindingCode = (typeof findingCodes)[number];

export const phaseNames = ['open', 'disks', 'power', 'firmware', 'kernel', 'agent', 'checks'] as const;
export type PhaseName = (typeof phaseNames)[number];

/** Phases follow each other: the sum of all is the time until the machine was usable. */
export interface Phase {
  readonly phase: PhaseName;
  readonly tookMs: number;
}

export interface CheckResult {
  /** `power`, `firmware`, `kernel`, `agent`, `screenshot`, `port 22`, `command …`. */
  readonly check: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly what: string;
}

export interface MachineResult {
  readonly machine: string;
  readonly machineId: string;
  readonly point: number;
  readonly snapshotTime: string;
  readonly consistency: string;
  readonly excludedDisks: readonly string[];
  readonly outcome: 'passed' | 'failed';
  readonly findings: readonly DrillFinding[];
  /** Null where its disks could not even be opened. */
  readonly firmware: Firmware | null;
  readonly phases: readonly Phase[];
  /** From the beginning until it passed; null where it did not. */
  readonly rtoMs: number | null;
  readonly checks: readonly CheckResult[];
  /** Of the guest, by its agent. */
  readonly guest: Readonly<Record<string, unknown>> | null;
  readonly fetchedBytes: number;
  /** Inside the evidence folder. */
  readonly evidence: string;
}

export interface DrillResult {
  readonly outcome: 'passed' | 'failed';
  readonly startedAt: string;
  readonly durationMs: number;
  /** From the beginning until the last machine passed; null where one did not. */
  readonly rtoMs: number | null;
  readonly qemu: string;
  readonly accelerator: Accelerator;
  readonly network: 'none' | 'isolated';
  readonly machines: readonly MachineResult[];
  /** About the drill as a whole. */
  readonly findings: readonly DrillFinding[];
  readonly sourceUntouched: boolean;
  readonly cleanedUp: boolean;
}
