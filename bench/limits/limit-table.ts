import { median } from '../spread.ts';
import { lineOf } from '../table.ts';
import { type LimitRound, type LimitRow, stagesOf, type Whole } from './measure-limits.ts';

/** What each part takes, and how much of the speed that the parts allow is reached by the whole. */

const titles = ['run', 'compression', 'part', 'seconds', 'MiB/s', 'CPU s per GiB', 'of the server', 'of the limit'];

const partNames: Readonly<Record<LimitRow['part'], string>> = {
  read: 'reading the source',
  make: 'digest, compress, seal',
  put: 'putting segments',
  get: 'getting ranges',
  open: 'open, decompress, check',
  write: 'writing the disk',
  whole: '**from end to end**',
};

/** Medians over rounds. Rates and shares are of the disk's data, zeros left out. */
interface PartTimes {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly serverCpuMs: number;
}

export function limitTable(rounds: readonly LimitRound[], cores: number): readonly string[] {
  const rows = rounds.flatMap((round) => round.rows);
  const dataBytes = median(rounds.map((round) => round.dataBytes));
  const lines = [lineOf(titles), lineOf(titles.map(() => '---'))];
  for (const whole of ['seed', 'restore'] as const)
    for (const compression of ['fastest', 'off'] as const) {
      const own = rows.filter((row) => row.whole === whole && row.compression === compression);
      if (own.length > 0) lines.push(...linesOf(whole, compression, own, dataBytes, cores));
    }
  return lines;
}

function linesOf(
  whole: Whole,
  compression: string,
  rows: readonly LimitRow[],
  dataBytes: number,
  cores: number,
): readonly string[] {
  const line = (name: string, { wallMs, cpuMs, serverCpuMs }: PartTimes, share: string) => {
    const perGib = (ms: number) => (ms / 1000 / (dataBytes / 2 ** 30)).toFixed(2);
    const rate = (dataBytes / 2 ** 20 / (wallMs / 1000)).toFixed(0);
    const cells = [(wallMs / 1000).toFixed(2), rate, perGib(cpuMs), perGib(serverCpuMs), share];
    return lineOf([whole, compression, name, ...cells]);
  };
  const end = timesOf(rows, 'whole');
  const parts = stagesOf[whole].map((part) => ({ part, times: timesOf(rows, part) }));
  return [
    ...parts.map(({ part, times }) => line(partNames[part], times, '')),
    line(
      partNames.whole,
      end,
      shareOfLimit(
        parts.map(({ times }) => times),
        end,
        cores,
      ).toFixed(2),
    ),
  ];
}

function timesOf(rows: readonly LimitRow[], part: LimitRow['part']): PartTimes {
  const own = rows.filter((row) => row.part === part);
  return {
    wallMs: median(own.map(({ wallMs }) => wallMs)),
    cpuMs: median(own.map(({ cpuMs }) => cpuMs)),
    serverCpuMs: median(own.map(({ serverCpuMs }) => serverCpuMs)),
  };
}

/** No pipeline is faster than its slowest part alone, nor than all cores busy with all parts, the server's included. */
export function shareOfLimit(parts: readonly PartTimes[], whole: PartTimes, cores: number): number {
  const slowestMs = Math.max(...parts.map(({ wallMs }) => wallMs));
  const allCpuMs = parts.reduce((sum, { cpuMs, serverCpuMs }) => sum + cpuMs + serverCpuMs, 0);
  return Math.max(slowestMs, allCpuMs / cores) / whole.wallMs;
}
