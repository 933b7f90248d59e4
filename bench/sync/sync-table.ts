import { formatSpread, median, secondsOf } from '../spread.ts';
import { lineOf } from '../table.ts';
import type { SyncRow } from './measure-sync.ts';

const titles = ['run', 'seconds', 'CPU seconds', 'of the server', 'without the empty sync, of a seed'];
const order = ['seed', 'empty sync', 'sync of 1 %', 'restore'] as const;

export function syncTable(rows: readonly SyncRow[]): readonly string[] {
  return [
    lineOf(titles),
    lineOf(titles.map(() => '---')),
    ...order.map((step) => {
      const own = rows.filter((row) => row.step === step);
      const [changed = 0] = own.map(({ changedBlocks }) => changedBlocks);
      const name = changed === 0 ? step : `${step} (${changed} blocks, scattered)`;
      const spreads = (['wallMs', 'cpuMs', 'serverCpuMs'] as const).map((time) =>
        formatSpread(secondsOf(own.map((row) => row[time])), 2),
      );
      return lineOf([name, ...spreads, step === 'sync of 1 %' ? variableCost(rows) : '']);
    }),
  ];
}

/** What is left of the sync's time without what a sync of nothing takes, beside the time of a seed. */
function variableCost(rows: readonly SyncRow[]): string {
  const cost = (time: 'wallMs' | 'cpuMs'): string => {
    const of = (step: SyncRow['step']) => median(rows.filter((row) => row.step === step).map((row) => row[time]));
    return `${(((of('sync of 1 %') - of('empty sync')) / of('seed')) * 100).toFixed(1)} %`;
  };
  return `${cost('wallMs')}; of CPU ${cost('cpuMs')}`;
}
