import type { BlockSource } from '../../hypervisor.ts';

/** What pull and push both come to. */
export interface OpenSnapshot {
  readonly takenAt: Date;
  readonly frozenMs: number | null;
  readonly sources: readonly BlockSource[];
  /** Throws unless all that was read is what the disks held at that instant. */
  check(signal: AbortSignal): Promise<void>;
}
