import type { BlockSource, DirectReads, Extent, HypervisorConnection } from '../../hypervisors/hypervisor.ts';
import { withDisks } from '../with-disks.ts';

/** How much of a machine's disks a run has dealt with, seen from outside: by what it asks the source for. */
export class Coverage {
  #disks: readonly DiskCoverage[] = [];

  begin(disks: readonly DiskCoverage[]): void {
    this.#disks = disks;
  }

  /** 0 until the snapshot is there. */
  get capacityBytes(): number {
    return this.#sum(({ capacityBytes }) => capacityBytes);
  }

  /** Read, or known not to need it. */
  get coveredBytes(): number {
    return this.#sum(({ coveredBytes }) => coveredBytes);
  }

  /** Reads as zero, says the source: nothing was read. */
  get zeroBytes(): number {
    return this.#sum(({ zeroBytes }) => zeroBytes);
  }

  /** Known from changed block tracking to be as it was. */
  get untouchedBytes(): number {
    return this.#sum(({ untouchedBytes }) => untouchedBytes);
  }

  #sum(of: (disk: DiskCoverage) => number): number {
    return this.#disks.reduce((sum, disk) => sum + of(disk), 0);
  }
}

class DiskCoverage {
  readonly capacityBytes: number;
  zeroBytes = 0;
  untouchedBytes = 0;
  #listedEnd = 0;
  #dataEnd = 0;
  #readEnd = 0;

  constructor(capacityBytes: number) {
    this.capacityBytes = capacityBytes;
  }

  /** What was listed and needs no read is dealt with as soon as all that does was read. */
  get coveredBytes(): number {
    return this.#readEnd >= this.#dataEnd ? this.#listedEnd : Math.min(this.#readEnd, this.capacityBytes);
  }

  /** A disk whose change tracking is lost is listed a second time. */
  beginList(): void {
    this.zeroBytes = 0;
    this.untouchedBytes = 0;
    this.#listedEnd = 0;
    this.#dataEnd = 0;
    this.#readEnd = 0;
  }

  /** `full`: what a full listing does not yield reads as zero; else it is as it was. */
  list({ offset, length, zero }: Extent, full: boolean): void {
    this.#skip(offset, full);
    this.#listedEnd = offset + length;
    if (zero) this.zeroBytes += length;
    else this.#dataEnd = this.#listedEnd;
  }

  endList(full: boolean): void {
    this.#skip(this.capacityBytes, full);
  }

  read(end: number): void {
    this.#readEnd = Math.max(this.#readEnd, end);
  }

  #skip(offset: number, full: boolean): void {
    const gap = Math.max(0, offset - this.#listedEnd);
    if (full) this.zeroBytes += gap;
    else this.untouchedBytes += gap;
    this.#listedEnd += gap;
  }
}

export function withCoverage(connection: HypervisorConnection, coverage: Coverage): HypervisorConnection {
  return withDisks(connection, (sources) => {
    const disks = sources.map((source) => ({ source, seen: new DiskCoverage(source.capacityBytes) }));
    coverage.begin(disks.map(({ seen }) => seen));
    return disks.map(({ source, seen }) => observedDisk(source, seen));
  });
}

function observedDisk(source: BlockSource, seen: DiskCoverage): BlockSource {
  return {
    label: source.label,
    capacityBytes: source.capacityBytes,
    referencePoint: source.referencePoint,
    changesOnly: source.changesOnly,
    async *changedExtents(since, signal) {
      const full = since === null;
      seen.beginList();
      for await (const extent of source.changedExtents(since, signal)) {
        seen.list(extent, full);
        yield extent;
      }
      seen.endList(full);
    },
    async read(offset, into, signal) {
      await source.read(offset, into, signal);
      seen.read(offset + into.length);
    },
    get direct(): DirectReads | null {
      const { direct } = source;
      const noteRead = (offset: number, bytes: number): void => {
        direct?.noteRead(offset, bytes);
        seen.read(offset + bytes);
      };
      return direct && { ...direct, noteRead };
    },
  };
}
